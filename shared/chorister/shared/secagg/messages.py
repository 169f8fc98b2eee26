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
from typing import Any

from chorister.shared import codec
from chorister.shared.secagg.bundles import Inbox, SealedShares, ShareBundle
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.packing import pack, unpack
from chorister.shared.secagg.roster import Advertisement, Roster
from chorister.shared.secagg.terms import MAX_COHORT, RoundTerms
from chorister.shared.secagg.wire import (
    SHARE_BYTES,
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
from chorister.shared.types import MaskedDelta

__all__ = [
    "Advertisement",
    "Inbox",
    "MaskedInput",
    "Reveal",
    "Roster",
    "RoundTerms",
    "SealedShares",
    "ShareBundle",
    "SurvivorVote",
    "Survivors",
    "UnmaskRequest",
    "check_masked_digest",
    "view_digest",
]


_MASKED = "chorister/1 masked input"


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
        digest = cls(view, delta, b"").digest()
        return cls(view, delta, identity.sign(_MASKED, _masked_body(view, digest)))

    def check(self, device: VerifyKey) -> None:
        """Return if the device signed this, or raise BadSignature."""
        check_masked_digest(self.view, self.digest(), self.signature, device)

    def digest(self) -> bytes:
        """Return the SHA-256 of the packed vector, which the signature is under."""
        return hashlib.sha256(pack(self.delta)).digest()

    def to_bytes(self) -> bytes:
        """Return the canonical bytes; the vector is packed to modulus_bits a value."""
        return encode("masked", [self.view, pack(self.delta), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes, dimension: int, modulus_bits: int) -> MaskedInput:
        """Return the masked input in canonical bytes; nothing is verified yet.

        Args:
            dimension: d that the terms state; any other length is refused.
            modulus_bits: the same for the modulus.
        """
        length = (dimension * modulus_bits + 7) // 8
        plain = decode(data, "masked", max_bytes=length + 256)
        expect(isinstance(plain, list) and len(plain) == 3, "a masked input of three fields")
        view, packed, signature = plain
        expect(is_bytes(view, 32) and is_bytes(signature, SIGNATURE_BYTES), "digest and signature")
        expect(is_bytes(packed, length), f"{dimension} values of {modulus_bits} bits")
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
        return encode("survivors", [self.view, self.survivors.to_bytes()])

    @classmethod
    def from_bytes(cls, data: bytes) -> Survivors:
        """Return the survivors in canonical bytes."""
        plain = decode(data, "survivors")
        expect(isinstance(plain, list) and len(plain) == 2, "survivors of two fields")
        expect(is_bytes(plain[0], 32), "a digest of 32 bytes")
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
        return encode("vote", [self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> SurvivorVote:
        """Return the vote in canonical bytes; nothing is verified yet."""
        plain = decode(data, "vote")
        expect(isinstance(plain, list) and len(plain) == 1, "a vote of one field")
        expect(is_bytes(plain[0], SIGNATURE_BYTES), "a signature of 64 bytes")
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
        return encode("unmask", [[i, v.signature] for i, v in self.votes])

    @classmethod
    def from_bytes(cls, data: bytes) -> UnmaskRequest:
        """Return the request in canonical bytes; nothing is verified yet."""
        return _decode_request(data)


@lru_cache(maxsize=2)
def _decode_request(data: bytes) -> UnmaskRequest:
    """Decode once per process: a simulated cohort reads the same immutable votes n times."""
    plain = decode(data, "unmask")
    expect(isinstance(plain, list) and len(plain) <= MAX_COHORT, "at most 4096 votes")
    for entry in plain:
        expect(
            isinstance(entry, list) and len(entry) == 2 and is_index(entry[0])
            and is_bytes(entry[1], SIGNATURE_BYTES), "votes of an index and a signature",
        )  # fmt: skip
    expect_ascending([entry[0] for entry in plain])
    return UnmaskRequest(tuple((i, SurvivorVote(s)) for i, s in plain))


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
        return encode("reveal", [*self._plain(), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> Reveal:
        """Return the reveal in canonical bytes; nothing is verified yet."""
        plain = decode(data, "reveal")
        expect(isinstance(plain, list) and len(plain) == 4, "a reveal of four fields")
        seeds, keys, unreadable, signature = plain
        for entries in (seeds, keys):
            expect(isinstance(entries, list) and len(entries) <= MAX_COHORT, "at most 4096 shares")
            for entry in entries:
                expect(
                    isinstance(entry, list) and len(entry) == 2 and is_index(entry[0])
                    and is_bytes(entry[1], SHARE_BYTES), "shares of 33 bytes",
                )  # fmt: skip
            expect_ascending([entry[0] for entry in entries])
        expect(isinstance(unreadable, list) and len(unreadable) <= MAX_COHORT, "a list of owners")
        expect(all(is_index(i) for i in unreadable), "owners by their index")
        expect_ascending(unreadable)
        expect(is_bytes(signature, SIGNATURE_BYTES), "a signature of 64 bytes")
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


@lru_cache(maxsize=4)  # a device checks hundreds of votes with one body
def check_masked_digest(view: bytes, digest: bytes, signature: bytes, device: VerifyKey) -> None:
    """Return if a device signed the masked delta with this digest, or raise BadSignature."""
    device.verify(_MASKED, _masked_body(view, digest), signature)


def _masked_body(view: bytes, digest: bytes) -> bytes:
    return codec.encode([view, digest])


def _vote_body(terms: bytes, survivors: Survivors) -> bytes:
    return codec.encode([terms, survivors.view, survivors.survivors.to_bytes()])
