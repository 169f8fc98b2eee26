"""Every message of the secure aggregation protocol, with the one form it has on the wire.

Five exchanges (docs/protocol.md, section 2); the server's message is on the left:

    1  RoundTerms     -> Advertisement   keys, certified and signed
    2  Roster         -> ShareBundle     shares of both secrets, encrypted to the chosen neighbours
    3  Inbox          -> MaskedInput     the masked delta
    4  Survivors      -> SurvivorVote    one signature under one set of survivors
    5  UnmaskRequest  -> Reveal          one share for each neighbour

Devices are named by their index in the roster from the second exchange on. Every `from_bytes` is
strict, bounded in size, and raises `BadMessage` for anything else than the canonical form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadMessage
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.packing import pack, unpack
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.shared.signing import Certificate, SigningKey, VerifyKey
from chorister.shared.types import MaskedDelta

SIGNATURE_BYTES = 64
SEALED_BYTES = 82
"""Two shares of 33 bytes and the 16-byte tag of AES-256-GCM."""
SHARE_BYTES = 33
MAX_MESSAGE_BYTES = {
    "advertisement": 1024,
    "roster": MAX_COHORT * 640,
    "bundle": MAX_COHORT * 192 + 1024,
    "inbox": MAX_COHORT * 192 + 1024,
    "masked": codec.MAX_MESSAGE_BYTES,
    "survivors": 1024,
    "vote": 256,
    "unmask": MAX_COHORT * 96 + 1024,
    "reveal": MAX_COHORT * 64 + 1024,
}


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
        _expect(isinstance(plain, list) and len(plain) == 9, "an advertisement of nine fields")
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
            _expect(_is_bytes(value, 32), "keys and digests of 32 bytes")
        for value in (certificate, signature):
            _expect(_is_bytes(value, SIGNATURE_BYTES), "signatures of 64 bytes")
        _expect(type(federation) is str and len(federation) <= 64, "a short federation name")
        _expect(type(not_after_s) is int and 0 <= not_after_s < 2**40, "a Unix time")
        return cls(
            Certificate(VerifyKey(key), federation, not_after_s, certificate),
            terms, sealing, masking, commitment, signature,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return _encode("advertisement", self.to_plain())

    @classmethod
    def from_bytes(cls, data: bytes) -> Advertisement:
        """Return the advertisement in canonical bytes."""
        return cls.from_plain(_decode(data, "advertisement"))


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
        return _encode("roster", [self.terms, [a.to_plain() for a in self.advertisements]])

    @classmethod
    def from_bytes(cls, data: bytes) -> Roster:
        """Return the roster in canonical bytes; nothing is verified yet."""
        return _decode_roster(data)


@lru_cache(maxsize=2)
def _decode_roster(data: bytes) -> Roster:
    """Decode once per process: a simulated cohort reads the same immutable roster n times."""
    plain = _decode(data, "roster")
    _expect(isinstance(plain, list) and len(plain) == 2, "a roster of two fields")
    terms, entries = plain
    _expect(_is_bytes(terms, 32), "a digest of 32 bytes")
    _expect(isinstance(entries, list) and 2 <= len(entries) <= MAX_COHORT, "2 to 4096 devices")
    roster = Roster(terms, tuple(Advertisement.from_plain(entry) for entry in entries))
    ids = [a.device_id for a in roster.advertisements]
    _expect(all(a < b for a, b in pairwise(ids)), "device ids in ascending order")
    return roster


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
        return _encode("bundle", [self.roster, self._shares(), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> ShareBundle:
        """Return the bundle in canonical bytes; nothing is verified yet."""
        plain = _decode(data, "bundle")
        _expect(isinstance(plain, list) and len(plain) == 3, "a share bundle of three fields")
        roster, entries, signature = plain
        _expect(
            _is_bytes(roster, 32) and _is_bytes(signature, SIGNATURE_BYTES), "digest and signature"
        )
        _expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
        shares = []
        for entry in entries:
            _expect(isinstance(entry, list) and len(entry) == 4, "shares of four fields")
            recipient, sealed, seed, key = entry
            _expect(
                _is_index(recipient) and _is_bytes(sealed, SEALED_BYTES),
                "sealed shares of 82 bytes",
            )
            _expect(_is_bytes(seed, 32) and _is_bytes(key, 32), "commitments of 32 bytes")
            shares.append(SealedShares(recipient, sealed, seed, key))
        _expect_ascending([s.recipient for s in shares])
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
        return _encode(
            "inbox", [self.roster, self.sharers.to_bytes(), [list(s) for s in self.shares]]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Inbox:
        """Return the inbox in canonical bytes."""
        plain = _decode(data, "inbox")
        _expect(isinstance(plain, list) and len(plain) == 3, "an inbox of three fields")
        roster, sharers, entries = plain
        _expect(_is_bytes(roster, 32), "a digest of 32 bytes")
        _expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
        for entry in entries:
            _expect(
                isinstance(entry, list) and len(entry) == 2 and _is_index(entry[0])
                and _is_bytes(entry[1], SEALED_BYTES), "sealed shares of 82 bytes",
            )  # fmt: skip
        _expect_ascending([entry[0] for entry in entries])
        return cls(roster, Members.from_bytes(sharers), tuple((s, c) for s, c in entries))


@dataclass(frozen=True, slots=True)
class MaskedInput:
    """A device's masked delta: the only message that holds a vector.

    Attributes:
        view: digest of roster and sharers that the masks were derived for, 32 bytes.
        delta: the masked delta.
        signature: by the identity key, 64 bytes.
    """

    view: bytes
    delta: MaskedDelta
    signature: bytes

    @classmethod
    def sign(cls, view: bytes, delta: MaskedDelta, identity: SigningKey) -> MaskedInput:
        """Return the message with the identity's signature."""
        body = cls(view, delta, b"")._body(pack(delta))
        return cls(view, delta, identity.sign("chorister/1 masked input", body))

    def check(self, device: VerifyKey) -> None:
        """Return if the device signed this, or raise BadSignature."""
        device.verify("chorister/1 masked input", self._body(pack(self.delta)), self.signature)

    def _body(self, packed: bytes) -> bytes:
        return codec.encode([self.view, hashlib.sha256(packed).digest()])

    def to_bytes(self) -> bytes:
        """Return the canonical bytes; the vector is packed to modulus_bits a value."""
        return _encode("masked", [self.view, pack(self.delta), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes, dimension: int, modulus_bits: int) -> MaskedInput:
        """Return the masked input in canonical bytes; nothing is verified yet.

        Args:
            dimension: d that the terms state; any other length is refused.
            modulus_bits: the same for the modulus.
        """
        length = (dimension * modulus_bits + 7) // 8
        plain = _decode(data, "masked", max_bytes=length + 256)
        _expect(isinstance(plain, list) and len(plain) == 3, "a masked input of three fields")
        view, packed, signature = plain
        _expect(
            _is_bytes(view, 32) and _is_bytes(signature, SIGNATURE_BYTES), "digest and signature"
        )
        _expect(_is_bytes(packed, length), f"{dimension} values of {modulus_bits} bits")
        return cls(view, unpack(packed, dimension, modulus_bits), signature)


@dataclass(frozen=True, slots=True)
class Survivors:
    """Whose masked inputs arrived, as the server claims.

    Attributes:
        view: digest of roster and sharers, 32 bytes.
        survivors: the devices whose deltas will be in the sum.
    """

    view: bytes
    survivors: Members

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return _encode("survivors", [self.view, self.survivors.to_bytes()])

    @classmethod
    def from_bytes(cls, data: bytes) -> Survivors:
        """Return the survivors in canonical bytes."""
        plain = _decode(data, "survivors")
        _expect(isinstance(plain, list) and len(plain) == 2, "survivors of two fields")
        _expect(_is_bytes(plain[0], 32), "a digest of 32 bytes")
        return cls(plain[0], Members.from_bytes(plain[1]))


@dataclass(frozen=True, slots=True)
class SurvivorVote:
    """A device's word that it was told this set of survivors and no other.

    Attributes:
        signature: by the identity key over terms, view and survivors, 64 bytes.
    """

    signature: bytes

    @classmethod
    def sign(cls, terms: bytes, survivors: Survivors, identity: SigningKey) -> SurvivorVote:
        """Return the vote of the device with this identity."""
        return cls(identity.sign("chorister/1 survivors", _vote_body(terms, survivors)))

    def check(self, terms: bytes, survivors: Survivors, device: VerifyKey) -> None:
        """Return if the device voted for this set, or raise BadSignature."""
        verify(device, "chorister/1 survivors", _vote_body(terms, survivors), self.signature)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return _encode("vote", [self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> SurvivorVote:
        """Return the vote in canonical bytes; nothing is verified yet."""
        plain = _decode(data, "vote")
        _expect(isinstance(plain, list) and len(plain) == 1, "a vote of one field")
        _expect(_is_bytes(plain[0], SIGNATURE_BYTES), "a signature of 64 bytes")
        return cls(plain[0])


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """The votes that entitle the server to shares.

    Attributes:
        votes: (index, vote), strictly ascending by index.
    """

    votes: tuple[tuple[int, SurvivorVote], ...]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return _encode("unmask", [[i, v.signature] for i, v in self.votes])

    @classmethod
    def from_bytes(cls, data: bytes) -> UnmaskRequest:
        """Return the request in canonical bytes; nothing is verified yet."""
        plain = _decode(data, "unmask")
        _expect(isinstance(plain, list) and len(plain) <= MAX_COHORT, "at most 4096 votes")
        for entry in plain:
            _expect(
                isinstance(entry, list) and len(entry) == 2 and _is_index(entry[0])
                and _is_bytes(entry[1], SIGNATURE_BYTES), "votes of an index and a signature",
            )  # fmt: skip
        _expect_ascending([entry[0] for entry in plain])
        return cls(tuple((i, SurvivorVote(s)) for i, s in plain))


@dataclass(frozen=True, slots=True)
class Reveal:
    """A device's shares, one for each neighbour: the seed's of survivors, the key's of drop-outs.

    Attributes:
        seed_shares: (owner, 33-byte share of the owner's self-mask seed), ascending by owner.
        key_shares: (owner, 33-byte share of the owner's masking key), ascending by owner.
        unreadable: owners whose shares did not open, ascending; one of the two sides lies.
        signature: by the identity key, 64 bytes.
    """

    seed_shares: tuple[tuple[int, bytes], ...]
    key_shares: tuple[tuple[int, bytes], ...]
    unreadable: tuple[int, ...]
    signature: bytes

    def __repr__(self) -> str:
        return f"Reveal(seeds of {len(self.seed_shares)}, keys of {len(self.key_shares)})"

    def signed(self, survivors: Survivors, identity: SigningKey) -> Reveal:
        """Return the same reveal with the identity's signature."""
        signature = identity.sign("chorister/1 reveal", self._body(survivors))
        return Reveal(self.seed_shares, self.key_shares, self.unreadable, signature)

    def check(self, survivors: Survivors, device: VerifyKey) -> None:
        """Return if the device signed this for these survivors, or raise BadSignature."""
        device.verify("chorister/1 reveal", self._body(survivors), self.signature)

    def _body(self, survivors: Survivors) -> bytes:
        return hashlib.sha256(codec.encode([survivors.to_bytes(), *self._plain()])).digest()

    def _plain(self) -> list[Any]:
        return [
            [list(s) for s in self.seed_shares],
            [list(s) for s in self.key_shares],
            list(self.unreadable),
        ]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return _encode("reveal", [*self._plain(), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> Reveal:
        """Return the reveal in canonical bytes; nothing is verified yet."""
        plain = _decode(data, "reveal")
        _expect(isinstance(plain, list) and len(plain) == 4, "a reveal of four fields")
        seeds, keys, unreadable, signature = plain
        for entries in (seeds, keys):
            _expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
            for entry in entries:
                _expect(
                    isinstance(entry, list) and len(entry) == 2 and _is_index(entry[0])
                    and _is_bytes(entry[1], SHARE_BYTES), "shares of 33 bytes",
                )  # fmt: skip
            _expect_ascending([entry[0] for entry in entries])
        _expect(isinstance(unreadable, list) and len(unreadable) <= MAX_COHORT, "a list of owners")
        _expect(all(_is_index(i) for i in unreadable), "owners by their index")
        _expect_ascending(unreadable)
        _expect(_is_bytes(signature, SIGNATURE_BYTES), "a signature of 64 bytes")
        return cls(
            tuple((i, s) for i, s in seeds), tuple((i, s) for i, s in keys), tuple(unreadable),
            signature
        )  # fmt: skip


def view_digest(terms: bytes, roster: bytes, sharers: Members) -> bytes:
    """Return the digest of what a device was told before it masked, 32 bytes.

    Pairwise masks are derived from it: devices that were told different sharers have masks that
    never cancel (docs/protocol.md, section 6).
    """
    body = codec.encode([terms, roster, sharers.to_bytes()])
    return hashlib.sha256(b"chorister/1 view\x00" + body).digest()


def verify(device: VerifyKey, label: str, payload: bytes, signature: bytes) -> None:
    """Return if the signature verifies; one that verified once in this process is not checked
    again.

    Raises:
        BadSignature: it does not verify.
    """
    _verified(device.raw, label, payload, signature)


def verify_certificate(authority: VerifyKey, certificate: Certificate, federation: str) -> None:
    """Return if the authority signed the certificate for the federation, whatever the time is.

    Raises:
        BadSignature: it did not.
    """
    _verified_certificate(authority.raw, certificate, federation)


# A signature's validity is a pure function of its inputs, and failures are not remembered. A device
# verifies each signature once; a simulation, where n devices share one process, saves a factor n.
@lru_cache(maxsize=8192)
def _verified(raw: bytes, label: str, payload: bytes, signature: bytes) -> None:
    VerifyKey(raw).verify(label, payload, signature)


@lru_cache(maxsize=8192)
def _verified_certificate(authority: bytes, certificate: Certificate, federation: str) -> None:
    certificate.check(VerifyKey(authority), federation, certificate.not_after_s)


def _vote_body(terms: bytes, survivors: Survivors) -> bytes:
    return codec.encode([terms, survivors.view, survivors.survivors.to_bytes()])


def _encode(name: str, fields: list[Any]) -> bytes:
    return codec.encode([name, *fields])


def _decode(data: bytes, name: str, max_bytes: int | None = None) -> Any:
    limit = MAX_MESSAGE_BYTES[name] if max_bytes is None else max_bytes
    plain = codec.decode(data, max_bytes=limit)
    _expect(isinstance(plain, list) and len(plain) > 0 and plain[0] == name, f"a message '{name}'")
    return plain[1:]


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise BadMessage(f"The protocol expects {rule}.", "something else", "Drop the message.")


def _expect_ascending(indices: list[int]) -> None:
    _expect(all(a < b for a, b in pairwise(indices)), "ascending order")


def _is_bytes(value: Any, length: int) -> bool:
    return type(value) is bytes and len(value) == length


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COHORT
