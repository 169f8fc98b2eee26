"""The device's side of the secure aggregation: a state machine without I/O (docs/protocol.md).

    begin -> advertisement; share -> share bundle; mask -> masked input; confirm -> vote; reveal ->
    shares

Each step may run in a process of its own: between two, the caller seals `to_state()` and puts it
back with `Party.from_state`. A step that raises leaves the state as it was; after a
`ProtocolViolation` the caller forgets the state, so the round is over on this device. Before it
sends what `reveal` returned, the caller records on disk that this round was revealed, and never
asks a second time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from chorister.client.secagg_checks import Acceptance, check_roster, choose_neighbours
from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSignature, ProtocolViolation
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.keys import (
    AgreementKey,
    Binding,
    commit_seed,
    commit_share,
    open_sealed,
    seal,
)
from chorister.shared.secagg.masks import MaskedSum, residues
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import (
    Advertisement,
    Inbox,
    MaskedInput,
    Reveal,
    Roster,
    SealedShares,
    ShareBundle,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
    view_digest,
)
from chorister.shared.secagg.sharing import SHARE_BYTES, split
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.thresholds import Thresholds, derive
from chorister.shared.signing import Certificate, SigningKey, VerifyKey
from chorister.shared.types import MaskedDelta, NoisedDelta

__all__ = ["Acceptance", "Party"]


@dataclass(slots=True)
class _Peers:
    """What the device keeps of the roster: public keys by index, and its own index."""

    own: int
    roster: bytes
    identities: list[bytes]
    sealing: list[bytes]
    masking: list[bytes]


@dataclass(slots=True)
class _Secrets:
    """The round's secrets; each is wiped when no later step needs it. It has no readable form."""

    sealing: bytearray
    masking: bytearray
    seed: bytearray
    agreed: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "_Secrets(secret)"

    def wipe(self) -> None:
        """Overwrite the keys and the seed, as far as Python lets one."""
        for secret in (self.sealing, self.masking, self.seed):
            secret[:] = bytes(len(secret))
        self.sealing, self.masking, self.seed = bytearray(), bytearray(), bytearray()
        self.agreed = {}


class Party:
    """One device in one round; use `Party.begin` or `Party.from_state`."""

    def __init__(
        self,
        phase: str,
        terms: RoundTerms,
        advertisement: bytes,
        secrets: _Secrets,
        *,
        peers: _Peers | None = None,
        chosen: Members | None = None,
        view: bytes = b"",
        sharers: Members | None = None,
        unreadable: tuple[int, ...] = (),
        survivors: Survivors | None = None,
    ) -> None:
        self.phase = phase
        self.terms = terms
        self._advertisement = advertisement
        self._secrets = secrets
        self._peers = peers
        self._chosen = chosen
        self._view = view
        self._sharers = sharers
        self._unreadable = unreadable
        self._survivors = survivors

    def __repr__(self) -> str:
        return f"Party({self.phase}, round {self.terms.round_id})"

    @property
    def round_id(self) -> str:
        """The round's name; 'revealed' is recorded under it."""
        return self.terms.round_id

    @classmethod
    def begin(
        cls,
        identity: SigningKey,
        certificate: Certificate,
        authority: VerifyKey,
        terms: RoundTerms,
        acceptance: Acceptance,
        randomness: Randomness,
        now_s: int,
    ) -> tuple[Party, Advertisement]:
        """Accept a round's terms and make its keys.

        Args:
            identity: the device's signing key.
            certificate: the enrolment authority's word for it.
            authority: the authority's key, pinned when the device was enrolled.
            terms: what the server announced.
            acceptance: the least that the device's owner accepts.
            randomness: of all secrets; a simulation's only if the terms say so.
            now_s: Unix time.

        Raises:
            ProtocolViolation: the terms are below what the device accepts.
            BadSignature: its own certificate is of another federation, or has ended.
        """
        acceptance.check(terms, randomness)
        certificate.check(authority, terms.federation, now_s)
        secrets = _Secrets(
            bytearray(randomness.fork("sealing key").bytes(32)),
            bytearray(randomness.fork("masking key").bytes(32)),
            bytearray(randomness.fork("self-mask seed").bytes(32)),
        )
        digest = terms.sha256()
        advertisement = Advertisement(
            certificate,
            digest,
            AgreementKey(bytes(secrets.sealing)).public(),
            AgreementKey(bytes(secrets.masking)).public(),
            commit_seed(digest, certificate.device_key.raw, bytes(secrets.seed)),
            b"",
        ).signed(identity)
        return cls("advertised", terms, advertisement.to_bytes(), secrets), advertisement

    def share(
        self,
        roster: Roster,
        identity: SigningKey,
        authority: VerifyKey,
        acceptance: Acceptance,
        randomness: Randomness,
        now_s: int,
    ) -> ShareBundle:
        """Check everyone's keys, choose neighbours, and share both secrets among them.

        Raises:
            ProtocolViolation: not this round's roster, too small for the pinned limits, or without
                this device.
            BadMessage: a device in it is not certified or did not sign.
            RoundAborted: too few devices for the terms.
        """
        self._expect("advertised", "share keys")
        own = check_roster(
            roster, self.terms, Advertisement.from_bytes(self._advertisement), authority,
            acceptance, now_s,
        )  # fmt: skip
        everyone = roster.advertisements
        peers = _Peers(
            own,
            roster.digest(),
            [a.certificate.device_key.raw for a in everyone],
            [a.sealing_key for a in everyone],
            [a.masking_key for a in everyone],
        )
        thresholds = self._thresholds(peers)
        chosen = choose_neighbours(
            own, len(roster), thresholds.neighbours, randomness.fork("neighbours")
        )
        holders = sorted({*chosen, own})
        secret, t = self._secrets, thresholds.share_threshold
        seeds = split(bytes(secret.seed), holders, t, randomness.fork("seed shares"))
        keys = split(bytes(secret.masking), holders, t, randomness.fork("key shares"))
        sealing, binding = AgreementKey(bytes(secret.sealing)), self._binding(peers.roster)
        entries, agreed = [], {}
        for holder in chosen:
            agreed[holder] = sealing.agree(peers.sealing[holder])
            key = binding.sealing_key(
                agreed[holder], peers.identities[own], peers.identities[holder]
            )
            entries.append(
                SealedShares(
                    holder,
                    seal(key, seeds[holder] + keys[holder]),
                    commit_share("seed", peers.roster, own, holder, seeds[holder]),
                    commit_share("key", peers.roster, own, holder, keys[holder]),
                )
            )
        bundle = ShareBundle(peers.roster, tuple(entries), b"").signed(identity)
        secret.agreed, secret.held = agreed, {own: seeds[own] + keys[own]}
        self._peers, self._chosen, self.phase = peers, chosen, "shared"
        return bundle

    def mask(self, inbox: Inbox, noised: NoisedDelta, identity: SigningKey) -> MaskedInput:
        """Mask the delta for exactly the devices that the server says have shared.

        Raises:
            ProtocolViolation: another round's inbox, too few sharers, shares of nobody in it, or a
                delta that does not fit the terms.
        """
        self._expect("shared", "mask")
        peers, chosen = self._known()
        terms, own, n = self.terms, peers.own, len(peers.identities)
        thresholds = self._thresholds(peers)
        sharers = inbox.sharers
        senders = {sender for sender, _ in inbox.shares}
        present = {i for i in chosen if i in sharers}
        _require(inbox.roster == peers.roster, "shares are of the roster that this device signed")
        _require(sharers.within(n) and own in sharers, "this device is among those who shared")
        _require(
            len(sharers) >= thresholds.min_survivors
            and len(present) + 1 >= thresholds.share_threshold,
            f"{thresholds.min_survivors} devices share, {thresholds.share_threshold - 1} chosen",
            f"{len(sharers)}, {len(present)} of them chosen",
        )
        _require(
            senders <= sharers.indices and own not in senders,
            "shares come from devices that have shared",
        )
        _require(
            not thresholds.complete or senders == present,
            "in a complete graph everybody's shares reach everybody",
        )
        if len(noised.values) != terms.dimension or noised.modulus_bits != terms.modulus_bits:
            raise ProtocolViolation(
                f"A delta has {terms.dimension} values modulo 2**{terms.modulus_bits}.",
                f"{len(noised.values)} modulo 2**{noised.modulus_bits}",
                "Train the adapter that the terms name.",
            )
        held, unreadable = self._open(inbox, peers)
        view = view_digest(terms.sha256(), peers.roster, sharers)
        total = MaskedSum(terms.dimension)
        total.add(residues(noised.values, terms.modulus_bits))
        total.add_mask(bytes(self._secrets.seed))
        masking, binding = AgreementKey(bytes(self._secrets.masking)), self._binding(view)
        for peer in sorted(present | senders):
            low, high = sorted((own, peer))
            seed = binding.mask_seed(
                masking.agree(peers.masking[peer]), peers.identities[low], peers.identities[high]
            )
            if own == low:
                total.add_mask(seed)
            else:
                total.subtract_mask(seed)
        delta = MaskedDelta(total.reduced(terms.modulus_bits), terms.modulus_bits)
        message = MaskedInput.sign(view, delta, identity)
        self._secrets.wipe()
        self._secrets.held |= held
        self._view, self._sharers, self._unreadable = view, sharers, unreadable
        self.phase = "masked"
        return message

    def confirm(self, survivors: Survivors, identity: SigningKey) -> SurvivorVote:
        """Sign the set of survivors that the server claims, if this device can stand for it.

        Raises:
            ProtocolViolation: another view, without this device, too small, or with devices that
                this one was told had not shared.
        """
        self._expect("masked", "confirm survivors")
        peers, _ = self._known()
        sharers = self._sharers or Members.of(())
        needed = self._thresholds(peers).min_survivors
        _require(survivors.view == self._view, "survivors are of the view that was masked for")
        _require(
            survivors.survivors.indices <= sharers.indices, "only a device that shared can survive"
        )
        _require(peers.own in survivors.survivors, "only survivors are asked to confirm")
        found = f"{len(survivors.survivors)} devices"
        _require(len(survivors.survivors) >= needed, f"a sum covers {needed} devices", found)
        self._survivors, self.phase = survivors, "confirmed"
        return SurvivorVote.sign(self.terms.sha256(), survivors, identity)

    def reveal(self, request: UnmaskRequest, identity: SigningKey) -> Reveal:
        """Give one share for each neighbour: the seed's if it survived, the key's if it dropped
        out.

        Raises:
            ProtocolViolation: too few signatures under the survivors that this device confirmed.
        """
        self._expect("confirmed", "reveal shares")
        peers, _ = self._known()
        survivors, sharers = self._survivors, self._sharers
        if survivors is None or sharers is None:
            raise AssertionError("a confirmed party knows its survivors")
        quorum = self._thresholds(peers).vote_quorum
        voters = self._count_votes(request, survivors, peers)
        _require(
            voters >= quorum, f"{quorum} survivors sign one set before shares are revealed", voters
        )
        seeds, keys = [], []
        for owner, pair in sorted(self._secrets.held.items()):
            if owner in survivors.survivors:
                seeds.append((owner, pair[:SHARE_BYTES]))
            else:
                keys.append((owner, pair[SHARE_BYTES:]))
        reveal = Reveal(tuple(seeds), tuple(keys), self._unreadable, b"").signed(
            survivors, identity
        )
        self._secrets.held = {}
        self.phase = "revealed"
        return reveal

    def to_state(self) -> bytes:
        """Return what a later process needs; it holds secrets, so seal it before it is stored."""
        secrets, peers = self._secrets, self._peers
        plain: dict[str, Any] = {
            "phase": self.phase,
            "terms": self.terms.to_bytes(),
            "advertisement": self._advertisement,
            "secrets": [bytes(secrets.sealing), bytes(secrets.masking), bytes(secrets.seed)],
            "agreed": [[i, key] for i, key in sorted(secrets.agreed.items())],
            "held": [[i, pair] for i, pair in sorted(secrets.held.items())],
            "peers": None
            if peers is None
            else [
                peers.own, peers.roster, b"".join(peers.identities), b"".join(peers.sealing),
                b"".join(peers.masking),
            ],
            "chosen": None if self._chosen is None else self._chosen.to_bytes(),
            "view": self._view,
            "sharers": None if self._sharers is None else self._sharers.to_bytes(),
            "unreadable": list(self._unreadable),
            "survivors": None if self._survivors is None else self._survivors.to_bytes(),
        }  # fmt: skip
        body = codec.encode(plain)
        return hashlib.sha256(body).digest() + body

    @classmethod
    def from_state(cls, state: bytes) -> Party:
        """Return the party that `to_state` described.

        Raises:
            ProtocolViolation: the state is damaged.
        """
        # What fits its digest is what this device stored; nobody else writes it (it is sealed).
        digest, body = state[:32], state[32:]
        if hashlib.sha256(body).digest() != digest:
            raise ProtocolViolation(
                "A device continues a round from the state that it stored.", "a damaged state",
                "The round ends on this device; the next one starts afresh.",
            )  # fmt: skip
        plain = codec.decode(body)
        sealing, masking, seed = (bytearray(secret) for secret in plain["secrets"])
        secrets = _Secrets(sealing, masking, seed)
        secrets.agreed = dict(plain["agreed"])
        secrets.held = dict(plain["held"])
        peers, survivors = plain["peers"], plain["survivors"]
        if peers is not None:
            own, roster, *columns = peers
            peers = _Peers(own, roster, *(_rows(column) for column in columns))
        return cls(
            plain["phase"],
            RoundTerms.from_bytes(plain["terms"]),
            plain["advertisement"],
            secrets,
            peers=peers,
            chosen=_members(plain["chosen"]),
            view=plain["view"],
            sharers=_members(plain["sharers"]),
            unreadable=tuple(plain["unreadable"]),
            survivors=None if survivors is None else Survivors.from_bytes(survivors),
        )

    def _expect(self, phase: str, what: str) -> None:
        if self.phase != phase:
            raise ProtocolViolation(
                f"A device is asked to {what} once, right after it has {phase}.",
                f"a request when it has {self.phase}",
                "The server must run each stage once and in order; wait for the next round.",
            )

    def _known(self) -> tuple[_Peers, Members]:
        if self._peers is None or self._chosen is None:
            raise AssertionError("a party that shared knows its peers")
        return self._peers, self._chosen

    def _thresholds(self, peers: _Peers) -> Thresholds:
        terms = self.terms
        return derive(
            len(peers.identities), terms.cohort, terms.gamma, terms.dropout, terms.min_honest
        )

    def _binding(self, context: bytes) -> Binding:
        return Binding(self.terms.sha256(), context)

    def _open(self, inbox: Inbox, peers: _Peers) -> tuple[dict[int, bytes], tuple[int, ...]]:
        """Return the shares that open, and whose do not: a liar costs its shares, not the round."""
        sealing = AgreementKey(bytes(self._secrets.sealing))
        binding = self._binding(peers.roster)
        held: dict[int, bytes] = {}
        unreadable = []
        for sender, sealed in inbox.shares:
            agreed = self._secrets.agreed.get(sender) or sealing.agree(peers.sealing[sender])
            key = binding.sealing_key(agreed, peers.identities[sender], peers.identities[peers.own])
            try:
                held[sender] = open_sealed(key, sealed)
            except BadMessage:
                unreadable.append(sender)
        return held, tuple(unreadable)

    def _count_votes(self, request: UnmaskRequest, survivors: Survivors, peers: _Peers) -> int:
        digest, voters = self.terms.sha256(), 0
        for index, vote in request.votes:
            _require(index in survivors.survivors, "only survivors vote")
            try:
                vote.check(digest, survivors, VerifyKey(peers.identities[index]))
            except BadSignature:
                raise ProtocolViolation(
                    "Every vote is a signature under the set that this device confirmed.",
                    "a signature under something else",
                    "The server showed different sets to different devices; the round ends here.",
                ) from None
            voters += 1
        return voters


def _require(holds: bool, rule: str, found: object = "something else") -> None:
    if not holds:
        raise ProtocolViolation(
            f"The protocol demands that {rule}.", str(found), "The round ends on this device."
        )


def _rows(column: bytes) -> list[bytes]:
    return [column[i : i + 32] for i in range(0, len(column), 32)]


def _members(data: bytes | None) -> Members | None:
    return None if data is None else Members.from_bytes(data)
