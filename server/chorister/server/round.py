"""One round, top to bottom: from the newest shared adapter to the next one, or to none.

    1 cohort     who there is, and who is chosen
    2 terms      what this round promises; who has budget for it is asked
    3 advertise  keys and consent tokens        ->  who is admitted
    4 share      encrypted shares               ->  who can be unmasked
    5 contribute masked deltas                  ->  who survives
    6 confirm    signatures under the survivors ->  who agreed to be in the sum
    7 reveal     shares                         ->  the noisy sum, and only it
    8 update     mean delta -> server optimiser -> new shared adapter, named by its digest;
                 where the clip adapts, the count of deltas within it -> the next clip

The server never holds one client's delta in the clear. Any stage may lose devices; when too few
are left the round is aborted, the adapter stays as it was, and what was spent stays spent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from chorister.server.admission import MAX_REASON, Admission
from chorister.server.cohort import Network, choose_cohort
from chorister.server.operator import Operator
from chorister.server.rounds import RoundRecord, load_optimiser, save_optimiser
from chorister.server.secagg_coordinator import Coordinator
from chorister.server.terms import plan_round, total_noise_multiplier
from chorister.server.update import next_adapter, next_clip
from chorister.shared import codec
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.enrolment import ConsentToken
from chorister.shared.errors import ChoristerError, RoundAborted
from chorister.shared.exchanges import Application, Assignment, Invitation, RoundTask
from chorister.shared.privacy.charges import speaker_event
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.secagg.evidence import SumEvidence
from chorister.shared.secagg.messages import Advertisement
from chorister.shared.secagg.quantise import check_norm, mean_delta, share_within
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import Adapter

M = TypeVar("M")


class Encodable(Protocol):
    """A protocol message."""

    def to_bytes(self) -> bytes:
        """Return its one wire form."""


def run_round(network: Network, operator: Operator, number: int) -> RoundRecord:
    """Run one round and return what happened; nothing is committed but adapter, budget and ledger.

    Args:
        network: the devices.
        operator: settings, registry, budget, ledger.
        number: of the round, from 1.
    """
    log = _RoundLog(network, operator, number)
    try:
        _run(log)
    except ChoristerError as error:
        # The federation goes on with the next round; defects are not caught here.
        log.reason = error.found if isinstance(error, RoundAborted) else str(error)
        log.release_budget()
    return log.close()


def _run(log: _RoundLog) -> None:
    operator = log.operator
    settings, registry = operator.settings, operator.registry
    version = operator.registry.latest()
    if version is None:
        raise RoundAborted(
            "A round starts from an adapter.", "an empty registry", "Store the first."
        )
    adapter = registry.get(version.sha256)

    # 1 cohort
    devices = log.network.discover()
    gone = operator.revoked() | operator.withdrawals.devices()
    available = [d for d in devices if d not in gone]
    randomness = operator.randomness.fork(f"round {log.number}")
    chosen = choose_cohort(available, settings.aggregation.cohort_share, randomness.fork("cohort"))
    if len(chosen) < 2:
        raise RoundAborted(
            "A cohort has at least two devices.",
            f"{len(chosen)} available",
            "Wait for more devices.",
        )

    # 2 terms
    state = load_optimiser(operator.folder, version.sha256, len(adapter.values))
    # The federation is all that were ever charged: who is switched off today still has a speaker.
    population = len(operator.budget.devices() | set(devices))
    terms = plan_round(
        settings, operator.run, log.number, len(chosen), adapter, version.sha256,
        operator.simulated, state.clip_norm, population,
    )  # fmt: skip
    log.terms = terms
    event = speaker_event(terms)
    cohort = chosen if event is None else [d for d in chosen if operator.budget.covers(d, event)]
    log.refused("budget", len(chosen) - len(cohort))
    if len(cohort) < 2:
        raise RoundAborted(
            "A cohort has at least two devices whose speakers' budgets cover the round.",
            f"{len(cohort)} of {len(chosen)}",
            "The federation has learnt what it may from these speakers; a budget does not come "
            "back.",
        )
    if event is not None:
        operator.budget.reserve(terms.round_id, cohort, event)
        log.reserved = True
    segment_privacy = settings.segment_privacy if settings.private else None
    task = RoundTask(training=settings.training, segment_privacy=segment_privacy)
    witness = log.begin(terms, task, cohort, len(available))
    log.book("reserve")

    # 3 advertise
    invitation = Invitation(terms.to_bytes(), task, witness).to_bytes()
    applications = log.exchange(ADVERTISE, dict.fromkeys(cohort, invitation))
    advertisements = _admit(log, terms, applications)
    coordinator = Coordinator(terms, operator.authority, operator.now_s(), randomness.fork("probe"))
    rosters = log.step(ADVERTISE, coordinator, coordinator.advertised, advertisements)

    # 4 share
    bundles = log.exchange(SHARE, _encode(rosters))
    inboxes = log.step(SHARE, coordinator, coordinator.shared, bundles)

    # 5 contribute: from here on the budget is spent, whatever happens
    if event is not None:
        log.reserved = False
        operator.budget.spend(terms.round_id)
        log.book("spend")
    assignments = {d: Assignment(inbox.to_bytes(), adapter) for d, inbox in inboxes.items()}
    masked = log.exchange(CONTRIBUTE, _encode(assignments))
    survivors = log.step(CONTRIBUTE, coordinator, coordinator.masked, masked)

    # 6 confirm
    votes = log.exchange(CONFIRM, _encode(survivors))
    requests = log.step(CONFIRM, coordinator, coordinator.confirmed, votes)

    # 7 reveal
    shares = log.exchange(REVEAL, _encode(requests))
    log.answered[REVEAL] = len(shares)
    aggregate = coordinator.revealed(shares)
    log.note_refusals(coordinator)

    # 8 update
    check_norm(aggregate, terms)
    mean = mean_delta(aggregate, terms, coordinator.rotation_seed)
    new, state = next_adapter(adapter, mean, state, settings.aggregation)
    log.share_within = share_within(aggregate, terms)
    adaptive = settings.speaker_privacy.adaptive_clip
    if adaptive and log.share_within is not None:
        state = replace(state, clip_norm=next_clip(terms.clip_norm, log.share_within, adaptive))
    save_optimiser(operator.folder, adapter_digest(new), state)
    log.finish(new, coordinator.evidence)


def _admit(
    log: _RoundLog, terms: RoundTerms, applications: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the advertisements of the devices whose consent token holds, as bytes."""
    operator = log.operator
    door = Admission(
        authority=operator.authority, federation=operator.settings.name, round_id=terms.round_id,
        terms_sha256=terms.sha256().hex(), revoked=operator.revoked(),
        withdrawn=operator.withdrawals.devices(), ledger=operator.ledger,
    )  # fmt: skip
    admitted = {}
    for device, application in applications.items():
        try:
            parts = Application.from_bytes(application)
            token = ConsentToken.from_plain(codec.decode(parts.consent_token, max_bytes=1024))
            certificate = Advertisement.from_bytes(parts.advertisement).certificate
        except ChoristerError as error:
            if operator.withdrawals.hear(application, operator.now_s()) is not None:
                log.refused("withdrawn", 1)
                continue
            log.refused("admission", 1)
            log.note_refusal(ADVERTISE, device, error.found[:MAX_REASON])
            continue
        if certificate.device_id != device:
            log.refused("admission", 1)
            log.note_refusal(ADVERTISE, device, "another device's application")
            continue
        try:
            door.admit(certificate, token, operator.now_s())
            admitted[device] = parts.advertisement
        except ChoristerError:
            log.refused("admission", 1)  # the door has put the reason into the ledger
    return admitted


class _RoundLog:
    """Counts, bytes and outcome of a round while it runs."""

    def __init__(self, network: Network, operator: Operator, number: int) -> None:
        self.network = network
        self.operator = operator
        self.number = number
        self.terms: RoundTerms | None = None
        self.reason: str | None = None
        self.reserved = False
        self.share_within: float | None = None
        self.answered: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._refusals: Counter[str] = Counter()
        self._cohort: list[str] = []
        self._survivors: tuple[str, ...] = ()
        self._adapter: Adapter | None = None
        self._up = self._down = 0
        self._started = time.monotonic()

    @property
    def round_id(self) -> str:
        return self.terms.round_id if self.terms else f"{self.operator.run}/{self.number}"

    def begin(
        self, terms: RoundTerms, task: RoundTask, cohort: list[str], available: int
    ) -> Checkpoint:
        """Note the start and all that was promised, and sign the ledger up to here."""
        self._cohort = cohort
        operator = self.operator
        operator.ledger.append(
            "round", round=self.round_id, action="started", cohort=list(cohort),
            terms=terms.sha256().hex(), announced=codec.decode(terms.to_bytes()),
            task=task.model_dump(mode="json"),
            sampling={
                "method": "a fixed share of the devices that answered, drawn by the server",
                "share": operator.settings.aggregation.cohort_share, "available": available,
                "secret": False,
            },
        )  # fmt: skip
        return operator.ledger.checkpoint(operator.signing_key)

    def book(self, step: str) -> None:
        """Note a step of the round's budget; the charges themselves are in the budget's journal."""
        event = speaker_event(self.terms) if self.terms else None
        if event is not None:
            self.operator.ledger.append(
                "budget", round=self.round_id, step=step, charge=event.to_plain(),
                devices=len(self._cohort),
            )  # fmt: skip

    def exchange(self, name: str, requests: dict[str, bytes]) -> dict[str, bytes]:
        """Send, wait, count."""
        self._asked[name] = len(requests)
        self._down += sum(map(len, requests.values()))
        self.operator.note("exchange", {"round": self.round_id, "exchange": name,
                                        "asked": len(requests)})  # fmt: skip
        answers, reasons = self.network.exchange(name, self.round_id, requests)
        self.operator.note("answers", {"round": self.round_id, "exchange": name,
                                       "answered": len(answers)})  # fmt: skip
        self._up += sum(map(len, answers.values()))
        self._refusals.update(reasons.values())
        return answers

    def step(
        self,
        name: str,
        coordinator: Coordinator,
        take: Callable[[Mapping[str, bytes]], dict[str, M]],
        answers: Mapping[str, bytes],
    ) -> dict[str, M]:
        """Give the coordinator what arrived and return what it wants to send next."""
        self.answered[name] = 0
        try:
            found = take(answers)
        except ChoristerError:
            self.answered[name] = max(0, len(answers) - len(coordinator.refused))
            raise
        finally:
            self.note_refusals(coordinator)
        self.answered[name] = len(found)
        return found

    def release_budget(self) -> None:
        """Give back what was reserved, if no masked delta was asked for yet."""
        if self.reserved:
            if self.operator.budget.release(self.round_id):
                self.book("release")
            self.reserved = False

    def note_refusals(self, coordinator: Coordinator) -> None:
        """Move what the coordinator refused into the ledger."""
        for refusal in coordinator.refused:
            self._refusals["protocol"] += 1
            self.note_refusal(refusal.stage, refusal.device_id, refusal.reason)
        coordinator.refused.clear()

    def note_refusal(self, stage: str, device: str, reason: str) -> None:
        """Put a device's refusal into the ledger."""
        self.operator.ledger.append(
            "refusal", round=self.round_id, stage=stage, device=device, reason=reason
        )

    def refused(self, reason: str, count: int) -> None:
        """Count devices that were left out."""
        self._refusals[reason] += count

    def finish(self, adapter: Adapter, evidence: SumEvidence) -> None:
        """Store the new version."""
        self._survivors, self._adapter = evidence.survivors, adapter
        self.operator.ledger.append(
            "survivors", round=self.round_id, survivors=list(evidence.survivors),
            evidence=evidence.to_plain(),
        )  # fmt: skip
        parent = self.operator.registry.latest()
        self.operator.registry.store(
            adapter, parent=parent.sha256 if parent else None, round_id=self.round_id,
            survivors=len(self._survivors),
        )  # fmt: skip

    def close(self) -> RoundRecord:
        """Return the record, and put the outcome into the ledger."""
        operator, terms = self.operator, self.terms
        newest = operator.registry.latest()
        private = terms is not None and terms.private
        status = "finished" if self._adapter is not None else "aborted"
        operator.ledger.append(
            "round", round=self.round_id, action=status, reason=self.reason,
            adapter=newest.sha256 if newest else "",
        )  # fmt: skip
        operator.ledger.checkpoint(operator.signing_key)
        return RoundRecord(
            round=self.number,
            status="finished" if self._adapter is not None else "aborted",
            reason=self.reason,
            cohort=len(self._cohort),
            answered=self.answered,
            drop_outs={
                name: asked - self.answered.get(name, 0) for name, asked in self._asked.items()
            },
            refusals={reason: n for reason, n in sorted(self._refusals.items()) if n},
            survivors=len(self._survivors),
            adapter_sha256=newest.sha256 if newest else "",
            min_honest=terms.min_honest if terms else None,
            noise_multiplier=total_noise_multiplier(terms, len(self._survivors))
            if terms is not None and private and self._survivors
            else None,
            epsilon_speaker=operator.budget.epsilon_of_all() if private else None,
            bytes_up=self._up,
            bytes_down=self._down,
            seconds=time.monotonic() - self._started,
            clip_norm=terms.clip_norm if terms is not None and private else None,
            share_within=self.share_within,
        )


def _encode(messages: Mapping[str, Encodable]) -> dict[str, bytes]:
    """Encode each message; equal ones once, as a roster is the same for everybody."""
    encoded: dict[int, bytes] = {}
    for message in messages.values():
        if id(message) not in encoded:
            encoded[id(message)] = message.to_bytes()
    return {device: encoded[id(message)] for device, message in messages.items()}
