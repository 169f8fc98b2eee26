"""Encrypted shares on their way to the neighbours: the second exchange."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from chorister.shared import codec
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.shared.secagg.wire import (
    SEALED_BYTES,
    SIGNATURE_BYTES,
    decode,
    encode,
    expect,
    expect_ascending,
    is_bytes,
    is_index,
    verify,
)
from chorister.shared.signing import SigningKey, VerifyKey


@dataclass(frozen=True, slots=True)
class SealedShares:
    """One recipient's two shares, which only the recipient can read.

    Attributes:
        recipient: index in the roster.
        sealed: ciphertext and tag, 82 bytes.
        seed_commitment: SHA-256 commitment to the share of the self-mask seed, 32 bytes.
        key_commitment: the same for the share of the masking key, 32 bytes.
    """

    recipient: int
    sealed: bytes
    seed_commitment: bytes
    key_commitment: bytes


@dataclass(frozen=True, slots=True)
class ShareBundle:
    """A device's shares for the neighbours that it chose.

    Attributes:
        roster: digest of the roster that the device saw, 32 bytes.
        shares: strictly ascending by recipient.
        signature: by the identity key, 64 bytes.
    """

    roster: bytes
    shares: tuple[SealedShares, ...]
    signature: bytes

    def signed(self, identity: SigningKey) -> ShareBundle:
        """Return the same bundle with the identity's signature."""
        return ShareBundle(
            self.roster, self.shares, identity.sign("chorister/1 shares", self._body())
        )

    def check(self, device: VerifyKey) -> None:
        """Return if the device signed this, or raise BadSignature."""
        verify(device, "chorister/1 shares", self._body(), self.signature)

    def _body(self) -> bytes:
        return hashlib.sha256(codec.encode([self.roster, self._shares()])).digest()

    def _shares(self) -> list[Any]:
        return [[s.recipient, s.sealed, s.seed_commitment, s.key_commitment] for s in self.shares]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return encode("bundle", [self.roster, self._shares(), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> ShareBundle:
        """Return the bundle in canonical bytes; nothing is verified yet."""
        plain = decode(data, "bundle")
        expect(isinstance(plain, list) and len(plain) == 3, "a share bundle of three fields")
        roster, entries, signature = plain
        expect(
            is_bytes(roster, 32) and is_bytes(signature, SIGNATURE_BYTES), "digest and signature"
        )
        expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
        shares = []
        for entry in entries:
            expect(isinstance(entry, list) and len(entry) == 4, "shares of four fields")
            recipient, sealed, seed, key = entry
            expect(
                is_index(recipient) and is_bytes(sealed, SEALED_BYTES),
                "sealed shares of 82 bytes",
            )
            expect(is_bytes(seed, 32) and is_bytes(key, 32), "commitments of 32 bytes")
            shares.append(SealedShares(recipient, sealed, seed, key))
        expect_ascending([s.recipient for s in shares])
        return cls(roster, tuple(shares), signature)


@dataclass(frozen=True, slots=True)
class Inbox:
    """What one device needs before it masks.

    Attributes:
        roster: digest of the roster, 32 bytes.
        sharers: devices whose share bundles arrived.
        shares: (sender, sealed shares) for this device, strictly ascending by sender.
    """

    roster: bytes
    sharers: Members
    shares: tuple[tuple[int, bytes], ...]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return encode(
            "inbox", [self.roster, self.sharers.to_bytes(), [list(s) for s in self.shares]]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Inbox:
        """Return the inbox in canonical bytes."""
        plain = decode(data, "inbox")
        expect(isinstance(plain, list) and len(plain) == 3, "an inbox of three fields")
        roster, sharers, entries = plain
        expect(is_bytes(roster, 32), "a digest of 32 bytes")
        expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
        for entry in entries:
            expect(
                isinstance(entry, list) and len(entry) == 2 and is_index(entry[0])
                and is_bytes(entry[1], SEALED_BYTES), "sealed shares of 82 bytes",
            )  # fmt: skip
        expect_ascending([entry[0] for entry in entries])
        return cls(roster, Members.from_bytes(sharers), tuple((s, c) for s, c in entries))
