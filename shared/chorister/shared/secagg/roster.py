"""Who takes part, with which keys: the first exchange."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadMessage
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.shared.secagg.wire import (
    SIGNATURE_BYTES,
    decode,
    encode,
    expect,
    is_bytes,
    verify,
    verify_certificate,
)
from chorister.shared.signing import Certificate, SigningKey, VerifyKey


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A device's keys for one round.

    Attributes:
        certificate: the enrolment authority's word for the device's identity key.
        terms: digest of the round terms that the device accepted, 32 bytes.
        sealing_key: X25519 public key under which neighbours encrypt shares, 32 bytes.
        masking_key: X25519 public key from which pairwise masks follow, 32 bytes.
        seed_commitment: SHA-256 commitment to the seed of the self mask, 32 bytes.
        signature: by the identity key, 64 bytes.
    """

    certificate: Certificate
    terms: bytes
    sealing_key: bytes
    masking_key: bytes
    seed_commitment: bytes
    signature: bytes

    @property
    def device_id(self) -> str:
        """The device's pseudonym."""
        return self.certificate.device_id

    def signed(self, identity: SigningKey) -> Advertisement:
        """Return the same advertisement with the identity's signature."""
        return Advertisement(
            self.certificate, self.terms, self.sealing_key, self.masking_key, self.seed_commitment,
            identity.sign("chorister/1 advertisement", self._body()),
        )  # fmt: skip

    def check(self, authority: VerifyKey, federation: str, terms: bytes, now_s: int) -> None:
        """Return if the device is certified, signed this, and accepted these terms.

        Raises:
            BadSignature: it is not certified, or did not sign.
            BadMessage: it accepted other terms.
        """
        if self.terms != terms:
            raise BadMessage(
                "All devices of a round accepted the same terms.",
                "another digest",
                "Leave the device out.",
            )
        if now_s > self.certificate.not_after_s or self.certificate.federation != federation:
            self.certificate.check(authority, federation, now_s)
        verify_certificate(authority, self.certificate, federation)
        verify(
            self.certificate.device_key, "chorister/1 advertisement", self._body(), self.signature
        )

    def _body(self) -> bytes:
        return codec.encode(
            [self.terms, self.certificate.device_key.raw, self.sealing_key, self.masking_key,
             self.seed_commitment]
        )  # fmt: skip

    def to_plain(self) -> list[Any]:
        """Return plain data for the codec."""
        c = self.certificate
        return [
            c.device_key.raw, c.federation, c.not_after_s, c.signature, self.terms,
            self.sealing_key, self.masking_key, self.seed_commitment, self.signature,
        ]  # fmt: skip

    @classmethod
    def from_plain(cls, plain: Any) -> Advertisement:
        """Return the advertisement in plain data; nothing is verified yet.

        Raises:
            BadMessage: another form.
        """
        expect(isinstance(plain, list) and len(plain) == 9, "an advertisement of nine fields")
        (
            key,
            federation,
            not_after_s,
            certificate,
            terms,
            sealing,
            masking,
            commitment,
            signature,
        ) = plain
        for value in (key, terms, sealing, masking, commitment):
            expect(is_bytes(value, 32), "keys and digests of 32 bytes")
        for value in (certificate, signature):
            expect(is_bytes(value, SIGNATURE_BYTES), "signatures of 64 bytes")
        expect(type(federation) is str and len(federation) <= 64, "a short federation name")
        expect(type(not_after_s) is int and 0 <= not_after_s < 2**40, "a Unix time")
        return cls(
            Certificate(VerifyKey(key), federation, not_after_s, certificate),
            terms, sealing, masking, commitment, signature,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return encode("advertisement", self.to_plain())

    @classmethod
    def from_bytes(cls, data: bytes) -> Advertisement:
        """Return the advertisement in canonical bytes."""
        return cls.from_plain(decode(data, "advertisement"))


@dataclass(frozen=True, slots=True)
class Roster:
    """Everyone who takes part, in one order that all agree on.

    Attributes:
        terms: digest of the round terms, 32 bytes.
        advertisements: strictly ascending by device id.
    """

    terms: bytes
    advertisements: tuple[Advertisement, ...]

    def __len__(self) -> int:
        return len(self.advertisements)

    def digest(self) -> bytes:
        """Return the SHA-256 of the canonical bytes, 32 bytes: it commits to every key."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return encode("roster", [self.terms, [a.to_plain() for a in self.advertisements]])

    @classmethod
    def from_bytes(cls, data: bytes) -> Roster:
        """Return the roster in canonical bytes; nothing is verified yet."""
        return _decode_roster(data)


@lru_cache(maxsize=2)
def _decode_roster(data: bytes) -> Roster:
    """Decode once per process: a simulated cohort reads the same immutable roster n times."""
    plain = decode(data, "roster")
    expect(isinstance(plain, list) and len(plain) == 2, "a roster of two fields")
    terms, entries = plain
    expect(is_bytes(terms, 32), "a digest of 32 bytes")
    expect(isinstance(entries, list) and 2 <= len(entries) <= MAX_COHORT, "2 to 4096 devices")
    roster = Roster(terms, tuple(Advertisement.from_plain(entry) for entry in entries))
    ids = [a.device_id for a in roster.advertisements]
    expect(all(a < b for a, b in pairwise(ids)), "device ids in ascending order")
    return roster
