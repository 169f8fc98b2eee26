"""What a party keeps between two steps of a round, and its bytes for the device's sealed store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import ProtocolViolation
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import Survivors
from chorister.shared.secagg.terms import RoundTerms


@dataclass(slots=True)
class Peers:
    """What the device keeps of the roster.

    Attributes:
        own: its own index.
        roster: the roster's digest, 32 bytes.
        identities: Ed25519 public keys by index, 32 bytes each.
        sealing: X25519 public keys for shares by index, 32 bytes each.
        masking: X25519 public keys for masks by index, 32 bytes each.
        chosen: the neighbours that the device chose.
    """

    own: int
    roster: bytes
    identities: list[bytes]
    sealing: list[bytes]
    masking: list[bytes]
    chosen: Members


@dataclass(slots=True)
class Secrets:
    """The round's secrets; each is wiped when no later step needs it. It has no readable form.

    Attributes:
        sealing: private key for shares in transit.
        masking: private key for pairwise masks.
        seed: of the self mask.
        agreed: peer to the agreement of both sealing keys.
        held: owner to its two shares, 66 bytes.
    """

    sealing: bytearray
    masking: bytearray
    seed: bytearray
    agreed: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Secrets(secret)"

    def wipe(self) -> None:
        """Overwrite the keys and the seed, as far as Python lets one."""
        for secret in (self.sealing, self.masking, self.seed):
            secret[:] = bytes(len(secret))
        self.sealing, self.masking, self.seed = bytearray(), bytearray(), bytearray()
        self.agreed = {}


@dataclass(slots=True)
class PartyState:
    """A party between two steps.

    Attributes:
        phase: the last step: advertised, shared, masked, confirmed or revealed.
        terms: of the round.
        advertisement: its own, encoded.
        secrets: what is left of them.
        peers: from the second step on.
        view: digest that it masked for; empty before.
        sharers: that it masked for; empty before.
        unreadable: senders whose shares did not open.
        survivors: that it signed; None before.
    """

    phase: str
    terms: RoundTerms
    advertisement: bytes
    secrets: Secrets
    peers: Peers | None = None
    view: bytes = b""
    sharers: Members = field(default_factory=lambda: Members.of(()))
    unreadable: tuple[int, ...] = ()
    survivors: Survivors | None = None

    def __repr__(self) -> str:
        return f"PartyState({self.phase})"

    def to_bytes(self) -> bytes:
        """Return the state as bytes behind their digest. They hold secrets: for a sealed store."""
        secrets, peers, survivors = self.secrets, self.peers, self.survivors
        plain: dict[str, Any] = {
            "phase": self.phase,
            "terms": self.terms.to_bytes(),
            "advertisement": self.advertisement,
            "secrets": [bytes(secrets.sealing), bytes(secrets.masking), bytes(secrets.seed)],
            "agreed": [[i, key] for i, key in sorted(secrets.agreed.items())],
            "held": [[i, pair] for i, pair in sorted(secrets.held.items())],
            "peers": None if peers is None else _peers_to_plain(peers),
            "view": self.view,
            "sharers": self.sharers.to_bytes(),
            "unreadable": list(self.unreadable),
            "survivors": None if survivors is None else survivors.to_bytes(),
        }
        body = codec.encode(plain)
        return hashlib.sha256(body).digest() + body

    @classmethod
    def from_bytes(cls, state: bytes) -> PartyState:
        """Return the state that `to_bytes` gave.

        Raises:
            ProtocolViolation: the state is damaged.
        """
        # What fits its digest is what this device stored; nobody else writes it (it is sealed).
        digest, body = state[:32], state[32:]
        if hashlib.sha256(body).digest() != digest:
            raise ProtocolViolation(
                "A device continues a round from the state that it stored.",
                "a damaged state",
                "The round ends on this device; the next one starts afresh.",
            )
        plain = codec.decode(body)
        sealing, masking, seed = (bytearray(secret) for secret in plain["secrets"])
        survivors = plain["survivors"]
        return cls(
            plain["phase"],
            RoundTerms.from_bytes(plain["terms"]),
            plain["advertisement"],
            Secrets(sealing, masking, seed, dict(plain["agreed"]), dict(plain["held"])),
            None if plain["peers"] is None else _peers_from_plain(plain["peers"]),
            plain["view"],
            Members.from_bytes(plain["sharers"]),
            tuple(plain["unreadable"]),
            None if survivors is None else Survivors.from_bytes(survivors),
        )


def _peers_to_plain(peers: Peers) -> list[Any]:
    columns = [b"".join(c) for c in (peers.identities, peers.sealing, peers.masking)]
    return [peers.own, peers.roster, *columns, peers.chosen.to_bytes()]


def _peers_from_plain(plain: list[Any]) -> Peers:
    own, roster, *columns, chosen = plain
    identities, sealing, masking = (
        [column[i : i + 32] for i in range(0, len(column), 32)] for column in columns
    )
    return Peers(own, roster, identities, sealing, masking, Members.from_bytes(chosen))
