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

from chorister.client.secagg_checks import Acceptance, check_roster, choose_neighbours
from chorister.client.secagg_state import PartyState, Peers, Secrets
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
from chorister.shared.secagg.rotation import rotation_seed
from chorister.shared.secagg.sharing import SHARE_BYTES, split
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.thresholds import Thresholds, derive
from chorister.shared.signing import Certificate, SigningKey, VerifyKey
from chorister.shared.types import MaskedDelta, NoisedDelta

__all__ = ["Acceptance", "Party"]


class Party:
    """One device in one round; use `Party.begin` or `Party.from_state`.

    Args:
        state: what the last step left.
    """

    def __init__(self, state: PartyState) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"Party({self.phase}, round {self.terms.round_id})"

    @property
    def phase(self) -> str:
        """The last step: advertised, shared, masked, confirmed or revealed."""
        return self._state.phase

    @property
    def terms(self) -> RoundTerms:
        """Of the round."""
        return self._state.terms

    @property
    def round_id(self) -> str:
        """The round's name; 'revealed' is recorded under it."""
        return self.terms.round_id

    @property
    def rotation_seed(self) -> bytes:
        """Of the round's rotation, 32 bytes; only after `share`."""
        return rotation_seed(self._peers().roster)

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
        secrets = Secrets(
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
        state = PartyState("advertised", terms, advertisement.to_bytes(), secrets)
        return cls(state), advertisement

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
            roster, self.terms, Advertisement.from_bytes(self._state.advertisement), authority,
            acceptance, now_s,
        )  # fmt: skip
        everyone = roster.advertisements
        thresholds = self._thresholds(len(everyone))
        peers = Peers(
            own,
            roster.digest(),
            [a.certificate.device_key.raw for a in everyone],
            [a.sealing_key for a in everyone],
            [a.masking_key for a in everyone],
            choose_neighbours(
                own, len(everyone), thresholds.neighbours, randomness.fork("neighbours")
            ),
        )
        holders = sorted({*peers.chosen, own})
        secret, t = self._state.secrets, thresholds.share_threshold
        seeds = split(bytes(secret.seed), holders, t, randomness.fork("seed shares"))
        keys = split(bytes(secret.masking), holders, t, randomness.fork("key shares"))
        sealing, binding = AgreementKey(bytes(secret.sealing)), self._binding(peers.roster)
        entries, agreed = [], {}
        for holder in peers.chosen:
            agreed[holder] = _agree(sealing, peers.sealing[holder])
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
        self._state.peers, self._state.phase = peers, "shared"
        return bundle

    def mask(self, inbox: Inbox, noised: NoisedDelta, identity: SigningKey) -> MaskedInput:
        """Mask the delta for exactly the devices that the server says have shared.

        Raises:
            ProtocolViolation: another round's inbox, too few sharers, shares of nobody in it, or a
                delta that does not fit the terms.
        """
        self._expect("shared", "mask")
        terms, secrets, peers = self.terms, self._state.secrets, self._peers()
        neighbours = self._check_inbox(inbox, peers)
        if len(noised.values) != terms.length or noised.modulus_bits != terms.modulus_bits:
            raise ProtocolViolation(
                f"A delta has {terms.length} values modulo 2**{terms.modulus_bits}.",
                f"{len(noised.values)} modulo 2**{noised.modulus_bits}",
                "Train the adapter that the terms name.",
            )
        held, unreadable = self._open(inbox, peers)
        view = view_digest(terms.sha256(), peers.roster, inbox.sharers)
        total = MaskedSum(terms.length)
        total.add(residues(noised.values, terms.modulus_bits))
        total.add_mask(bytes(secrets.seed))
        masking, binding = AgreementKey(bytes(secrets.masking)), self._binding(view)
        for peer in neighbours:
            low, high = sorted((peers.own, peer))
            seed = binding.mask_seed(
                _agree(masking, peers.masking[peer]), peers.identities[low], peers.identities[high]
            )
            if peers.own == low:
                total.add_mask(seed)
            else:
                total.subtract_mask(seed)
        delta = MaskedDelta(total.reduced(terms.modulus_bits), terms.modulus_bits)
        message = MaskedInput.sign(view, delta, identity)
        secrets.wipe()
        secrets.held |= held
        self._state.view, self._state.sharers = view, inbox.sharers
        self._state.unreadable, self._state.phase = unreadable, "masked"
        return message

    def confirm(self, survivors: Survivors, identity: SigningKey) -> SurvivorVote:
        """Sign the set of survivors that the server claims, if this device can stand for it.

        Raises:
            ProtocolViolation: another view, without this device, too small, or with devices that
                this one was told had not shared.
        """
        self._expect("masked", "confirm survivors")
        peers, claimed = self._peers(), survivors.survivors
        needed = self._thresholds(len(peers.identities)).min_survivors
        _require(survivors.view == self._state.view, "survivors are of the view masked for")
        _require(
            claimed.indices <= self._state.sharers.indices, "only a device that shared can survive"
        )
        _require(peers.own in claimed, "only survivors are asked to confirm")
        _require(len(claimed) >= needed, f"a sum covers {needed} devices", f"{len(claimed)}")
        vote = SurvivorVote.sign(self.terms.sha256(), survivors, identity)
        self._state.survivors, self._state.phase = survivors, "confirmed"
        return vote

    def reveal(self, request: UnmaskRequest, identity: SigningKey) -> Reveal:
        """Give one share for each neighbour: the seed's if it survived, the key's if not.

        Raises:
            ProtocolViolation: too few signatures under the survivors that this device confirmed.
        """
        self._expect("confirmed", "reveal shares")
        peers, secrets, survivors = self._peers(), self._state.secrets, self._state.survivors
        if survivors is None:
            raise AssertionError("a confirmed party knows its survivors")
        quorum = self._thresholds(len(peers.identities)).vote_quorum
        voters = self._count_votes(request, survivors, peers)
        _require(
            voters >= quorum, f"{quorum} survivors sign one set before shares are revealed", voters
        )
        seeds, keys = [], []
        for owner, pair in sorted(secrets.held.items()):
            if owner in survivors.survivors:
                seeds.append((owner, pair[:SHARE_BYTES]))
            else:
                keys.append((owner, pair[SHARE_BYTES:]))
        reveal = Reveal(tuple(seeds), tuple(keys), self._state.unreadable, b"")
        signed = reveal.signed(survivors, identity)
        secrets.held = {}
        self._state.phase = "revealed"
        return signed

    def to_state(self) -> bytes:
        """Return what a later process needs; it holds secrets, so seal it before it is stored."""
        return self._state.to_bytes()

    @classmethod
    def from_state(cls, state: bytes) -> Party:
        """Return the party that `to_state` described.

        Raises:
            ProtocolViolation: the state is damaged.
        """
        return cls(PartyState.from_bytes(state))

    def _expect(self, phase: str, what: str) -> None:
        if self.phase != phase:
            raise ProtocolViolation(
                f"A device is asked to {what} once, right after it has {phase}.",
                f"a request when it has {self.phase}",
                "The server must run each stage once and in order; wait for the next round.",
            )

    def _peers(self) -> Peers:
        if self._state.peers is None:
            raise AssertionError("a party that shared knows its peers")
        return self._state.peers

    def _thresholds(self, n: int) -> Thresholds:
        terms = self.terms
        return derive(n, terms.cohort, terms.gamma, terms.dropout, terms.min_honest)

    def _binding(self, context: bytes) -> Binding:
        return Binding(self.terms.sha256(), context)

    def _check_inbox(self, inbox: Inbox, peers: Peers) -> list[int]:
        """Return the neighbours to mask with: those that I chose, and those that chose me."""
        thresholds = self._thresholds(len(peers.identities))
        sharers, senders = inbox.sharers, {sender for sender, _ in inbox.shares}
        present = {i for i in peers.chosen if i in sharers}
        least, chosen = thresholds.min_survivors, thresholds.share_threshold - 1
        _require(inbox.roster == peers.roster, "shares are of the roster that this device signed")
        _require(
            sharers.within(len(peers.identities)) and peers.own in sharers,
            "this device is among those who shared",
        )
        _require(
            len(sharers) >= least and len(present) >= chosen,
            f"{least} devices share, {chosen} of them chosen by this one",
            f"{len(sharers)} and {len(present)}",
        )
        _require(
            senders <= sharers.indices and peers.own not in senders,
            "shares come from devices that have shared",
        )
        _require(
            not thresholds.complete or senders == present,
            "in a complete graph everybody's shares reach everybody",
        )
        return sorted(present | senders)

    def _open(self, inbox: Inbox, peers: Peers) -> tuple[dict[int, bytes], tuple[int, ...]]:
        """Return the shares that open, and whose do not: a liar costs its shares, not the round."""
        sealing = AgreementKey(bytes(self._state.secrets.sealing))
        binding = self._binding(peers.roster)
        held: dict[int, bytes] = {}
        unreadable = []
        for sender, sealed in inbox.shares:
            agreed = self._state.secrets.agreed.get(sender)
            agreed = agreed or _agree(sealing, peers.sealing[sender])
            key = binding.sealing_key(agreed, peers.identities[sender], peers.identities[peers.own])
            try:
                held[sender] = open_sealed(key, sealed)
            except BadMessage:
                unreadable.append(sender)
        return held, tuple(unreadable)

    def _count_votes(self, request: UnmaskRequest, survivors: Survivors, peers: Peers) -> int:
        digest, voters = self.terms.sha256(), set()
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
            voters.add(index)
        return len(voters)


def _agree(key: AgreementKey, peer: bytes) -> bytes:
    """Return the agreement with a key of the roster.

    Whether a device meets a bad key depends on the neighbours that it drew: it may not draw again.
    """
    try:
        return key.agree(peer)
    except BadMessage as error:
        raise ProtocolViolation(
            "Every key of a roster is a point of large order.",
            error.found,
            "The server must leave its device out; the round ends here.",
        ) from None


def _require(holds: bool, rule: str, found: object = "something else") -> None:
    if not holds:
        raise ProtocolViolation(
            f"The protocol demands that {rule}.", str(found), "The round ends on this device."
        )
