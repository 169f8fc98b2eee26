"""The server's side of the secure aggregation: a state machine without I/O (docs/protocol.md).

    advertised -> rosters; shared -> inboxes; masked -> survivors; confirmed -> requests; revealed
    -> sum

Each step takes the answers that arrived, as bytes by the transport's name for the peer, and returns
what to send next, by the same names. A peer that did not answer, or answered with anything but a
valid message, has dropped out; `refused` says who and why. A step that cannot go on raises
`RoundAborted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from chorister.server.secagg_unmask import RevealedShares, unmask
from chorister.shared.errors import BadMessage, ProtocolViolation, RoundAborted
from chorister.shared.randomness import Randomness, SystemRandomness
from chorister.shared.secagg.evidence import SumEvidence
from chorister.shared.secagg.keys import AgreementKey
from chorister.shared.secagg.masks import MaskedSum
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import (
    Advertisement,
    Inbox,
    MaskedInput,
    Reveal,
    Roster,
    ShareBundle,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
    view_digest,
)
from chorister.shared.secagg.rotation import rotation_seed
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.thresholds import Thresholds, derive
from chorister.shared.signing import VerifyKey
from chorister.shared.types import Aggregate

Replies = Mapping[str, bytes]
M = TypeVar("M")
S = TypeVar("S")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device, or a peer that named no device, whose message was dropped.

    Attributes:
        device_id: its pseudonym; '' where the message did not prove one.
        peer: the transport's name for it.
        stage: the step in which it happened.
        reason: one line, without secrets.
    """

    device_id: str
    peer: str
    stage: str
    reason: str


class Coordinator:
    """One round on the server.

    Args:
        terms: what was announced to the cohort.
        authority: key of the enrolment authority.
        now_s: Unix time, against which certificates are checked.
        randomness: tests advertised keys; no secret of the round comes from it.
    """

    def __init__(
        self,
        terms: RoundTerms,
        authority: VerifyKey,
        now_s: int,
        randomness: Randomness | None = None,
    ) -> None:
        self.terms = terms
        self.refused: list[Refusal] = []
        self._authority = authority
        self._now_s = now_s
        self._digest = terms.sha256()
        probe = randomness or SystemRandomness()
        self._probe = AgreementKey(probe.fork("key probe").bytes(32))
        self._stage = "advertised"
        self._asked: frozenset[str] = frozenset()

    @property
    def thresholds(self) -> Thresholds:
        """The parameters derived for the roster; only after `advertised`."""
        return derive(
            len(self._roster), self.terms.cohort, self.terms.gamma, self.terms.dropout,
            self.terms.min_honest,
        )  # fmt: skip

    @property
    def evidence(self) -> SumEvidence:
        """The survivors' signatures, for the ledger; only after `confirmed`."""
        names = self.device_ids
        return SumEvidence(
            self._view, names,
            {names[i]: signed for i, signed in self._inputs.items()},
            {names[i]: vote.signature for i, vote in self._votes.items()},
        )  # fmt: skip

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The roster's pseudonyms by index; only after `advertised`."""
        return tuple(a.device_id for a in self._roster.advertisements)

    @property
    def rotation_seed(self) -> bytes:
        """Of the round's rotation, 32 bytes; only after `advertised`."""
        return rotation_seed(self._roster_digest)

    def advertised(self, replies: Replies) -> dict[str, Roster]:
        """Fix the roster from the advertisements.

        Raises:
            RoundAborted: too few devices.
        """
        self._enter("advertised")
        found: dict[str, tuple[str, Advertisement]] = {}
        for peer, advertisement in self._read(replies, Advertisement.from_bytes, anybody=True):
            device = advertisement.device_id
            if device in found:
                self._refuse(device, peer, "the device advertised keys twice")
            elif len(found) == self.terms.cohort:
                self._refuse(device, peer, f"the cohort of {self.terms.cohort} is complete")
            elif self._accepts(peer, device, self._check_keys, advertisement):
                found[device] = (peer, advertisement)
        if len(found) < 2:
            raise self._abort(f"{len(found)} devices advertised keys", 2)
        order = sorted(found)
        self._peers = [found[device][0] for device in order]
        self._roster = Roster(self._digest, tuple(found[device][1] for device in order))
        self._index = {peer: i for i, peer in enumerate(self._peers)}
        self._roster_digest = self._roster.digest()
        needed = self.thresholds.min_survivors
        if len(self._roster) < needed:
            raise self._abort(f"{len(self._roster)} devices advertised keys", needed)
        return self._ask("shared", dict.fromkeys(self._peers, self._roster))

    def shared(self, replies: Replies) -> dict[str, Inbox]:
        """Sort the encrypted shares by recipient.

        Raises:
            RoundAborted: too few devices shared.
        """
        self._enter("shared")
        self._bundles: dict[int, ShareBundle] = {}
        for peer, bundle in self._read(replies, ShareBundle.from_bytes):
            index = self._index[peer]
            if self._accepts(peer, self._name(index), self._check, bundle, index):
                self._bundles[index] = bundle
        needed = self.thresholds.min_survivors
        if len(self._bundles) < needed:
            raise self._abort(f"{len(self._bundles)} devices shared their secrets", needed)
        self._sharers = Members.of(self._bundles)
        self._view = view_digest(self._digest, self._roster_digest, self._sharers)
        letters: dict[int, list[tuple[int, bytes]]] = {i: [] for i in self._bundles}
        for sender in sorted(self._bundles):
            for entry in self._bundles[sender].shares:
                if entry.recipient in letters:
                    letters[entry.recipient].append((sender, entry.sealed))
        inboxes = {
            self._peers[i]: Inbox(self._roster_digest, self._sharers, tuple(entries))
            for i, entries in letters.items()
        }
        return self._ask("masked", inboxes)

    def masked(self, replies: Replies) -> dict[str, Survivors]:
        """Add up the masked deltas; whoever sent a valid one is a survivor.

        Raises:
            RoundAborted: too few survivors.
        """
        self._enter("masked")
        terms = self.terms
        self._total = MaskedSum(terms.length)
        self._inputs: dict[int, tuple[bytes, bytes]] = {}
        survivors = []
        for peer, message in self._read(
            replies, lambda data: MaskedInput.from_bytes(data, terms.length, terms.modulus_bits)
        ):
            index = self._index[peer]
            if self._accepts(peer, self._name(index), self._fits, message, index):
                self._total.add(message.delta.values)
                survivors.append(index)
                self._inputs[index] = (message.digest(), message.signature)
        needed = self.thresholds.min_survivors
        if len(survivors) < needed:
            raise self._abort(f"{len(survivors)} devices sent a masked delta", needed)
        self._survivors = Survivors(self._view, Members.of(survivors))
        return self._ask("confirmed", {self._peers[i]: self._survivors for i in survivors})

    def confirmed(self, replies: Replies) -> dict[str, UnmaskRequest]:
        """Collect the signatures under the set of survivors.

        Raises:
            RoundAborted: fewer signatures than devices demand.
        """
        self._enter("confirmed")
        votes: dict[int, SurvivorVote] = {}
        for peer, vote in self._read(replies, SurvivorVote.from_bytes):
            index = self._index[peer]
            if self._accepts(peer, self._name(index), self._count, vote, index):
                votes[index] = vote
        needed = self.thresholds.vote_quorum
        if len(votes) < needed:
            raise self._abort(f"{len(votes)} devices signed the set of survivors", needed)
        self._votes = votes
        # A quorum is enough for everybody; more signatures would only cost download and checks.
        request = UnmaskRequest(tuple(sorted(votes.items())[:needed]))
        return self._ask("revealed", {self._peers[i]: request for i in sorted(votes)})

    def revealed(self, replies: Replies) -> Aggregate:
        """Reconstruct what unmasks the sum, and unmask it.

        Raises:
            RoundAborted: a secret cannot be reconstructed; the reason names who is to blame.
        """
        self._enter("revealed")
        shares = RevealedShares(
            self.terms, self._roster, self._roster_digest, self._bundles, self._survivors.survivors,
            self.thresholds.share_threshold,
        )  # fmt: skip
        for peer, reveal in self._read(replies, Reveal.from_bytes):
            index = self._index[peer]
            if not self._accepts(peer, self._name(index), self._fits_survivors, reveal, index):
                continue
            for reason in shares.add(index, reveal):
                self._refuse(self._name(index), peer, reason)
        self._stage = "finished"
        values = unmask(self._total, shares, self._view)
        for owner in shares.inconsistent:
            reason = "committed to shares that do not belong together"
            self._refuse(self._name(owner), self._peers[owner], reason)
        ids = self.device_ids
        return Aggregate(
            values,
            tuple(sorted(ids[i] for i in self._survivors.survivors)),
            self.terms.modulus_bits,
        )

    def _enter(self, stage: str) -> None:
        if self._stage != stage:
            raise ProtocolViolation(
                f"The stages run once and in order; next is '{self._stage}'.", f"'{stage}'",
                "Start a new round.",
            )  # fmt: skip
        # A step that raises ends the round.
        self._stage = "aborted"
        self._now = stage

    def _read(
        self, replies: Replies, decode: Callable[[bytes], M], *, anybody: bool = False
    ) -> Iterator[tuple[str, M]]:
        """Yield what decodes, in the order of the peers' names, and refuse the rest."""
        for peer in sorted(replies):
            if not anybody and peer not in self._asked:
                self._refuse("", peer, "the peer was not asked in this stage")
                continue
            try:
                yield peer, decode(replies[peer])
            except BadMessage as e:
                self._refuse("" if anybody else self._name(self._index[peer]), peer, str(e))

    def _ask(self, stage: str, messages: dict[str, S]) -> dict[str, S]:
        """Enter the next stage, in which only these peers are heard."""
        self._stage, self._asked = stage, frozenset(messages)
        return messages

    def _accepts(
        self, peer: str, device: str, check: Callable[P, None], *what: P.args, **named: P.kwargs
    ) -> bool:
        try:
            check(*what, **named)
        except BadMessage as e:
            self._refuse(device, peer, str(e))
            return False
        return True

    def _fits_survivors(self, reveal: Reveal, index: int) -> None:
        reveal.check(self._survivors, self._key(index))

    def _check_keys(self, advertisement: Advertisement) -> None:
        advertisement.check(self._authority, self.terms.federation, self._digest, self._now_s)
        # A key of low order would end the round on every neighbour.
        self._probe.agree(advertisement.sealing_key)
        self._probe.agree(advertisement.masking_key)

    def _check(self, bundle: ShareBundle, index: int) -> None:
        recipients = [s.recipient for s in bundle.shares]
        n, k = len(self._roster), self.thresholds.neighbours
        if (
            bundle.roster != self._roster_digest
            or len(recipients) != k
            or index in recipients
            or recipients[-1] >= n
        ):
            raise BadMessage(
                f"A bundle holds shares for {k} others of this roster.", "something else",
                "Leave its device out.",
            )  # fmt: skip
        bundle.check(self._key(index))

    def _fits(self, message: MaskedInput, index: int) -> None:
        if message.view != self._view:
            raise BadMessage(
                "A delta is masked for this round's sharers.", "another view", "Leave it out."
            )
        message.check(self._key(index))

    def _count(self, vote: SurvivorVote, index: int) -> None:
        vote.check(self._digest, self._survivors, self._key(index))

    def _key(self, index: int) -> VerifyKey:
        return self._roster.advertisements[index].certificate.device_key

    def _name(self, index: int) -> str:
        return self._roster.advertisements[index].device_id

    def _refuse(self, device: str, peer: str, reason: str) -> None:
        self.refused.append(Refusal(device, peer, self._now, reason))

    def _abort(self, found: str, needed: int) -> RoundAborted:
        return RoundAborted(
            f"This stage needs {needed} devices.", found,
            "Keep the old adapter and start another round; what was refused, and why, is listed.",
        )  # fmt: skip
