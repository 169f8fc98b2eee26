"""The figures of a report, from budgets' journals: by unit, device, round and accountant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chorister.server.inspection import Inspection
from chorister.server.report_record import (
    Accountant,
    DeviceBudget,
    Extrapolated,
    Figure,
    Group,
)
from chorister.server.report_story import RoundStory, Story
from chorister.shared.privacy.budget import is_local
from chorister.shared.privacy.crosscheck import SERVER, JournalFacts
from chorister.shared.privacy.events import MECHANISMS, PrivacyEvent, Unit
from chorister.shared.privacy.figures import PrivacyFigure
from chorister.shared.privacy.segment_level import recording_figure, segment_figure
from chorister.shared.privacy.speaker_level import speaker_figure

MOST_DEVICES = 40
"""Devices whose figures are worked out one by one; the ones that spent most come first."""
FIGURES = {"segment": segment_figure, "speaker": speaker_figure}


@dataclass(frozen=True, slots=True)
class Account:
    """One device's events in one unit, and its limit."""

    device: str
    unit: Unit
    source: str
    spent: tuple[PrivacyEvent, ...]
    booked: tuple[PrivacyEvent, ...]
    limit: Mapping[str, Any]
    rounds: int
    without_a_sum: int

    @property
    def weight(self) -> float:
        """A rough size of what was spent, to sort by before anything is worked out."""
        return sum(e.steps * (e.sample_rate / e.noise_multiplier) ** 2 for e in self.booked)


def accounts(found: Inspection, finished: frozenset[str]) -> list[Account]:
    """Return every account in the journals that were inspected, the largest first.

    Args:
        found: the inspection.
        finished: rounds that came to a sum, as the server's ledger says.
    """
    rows: list[Account] = []
    for ledger in found.ledgers:
        if ledger.booked is None:
            continue
        for account in ledger.booked.book.accounts():
            rows.append(_account(ledger.owner, account, ledger.booked, finished))
    return sorted(_whole_lives(rows), key=lambda row: -row.weight)


def _whole_lives(rows: Sequence[Account]) -> Iterator[Account]:
    """Give each account once: what a vault booked by itself counts with its federation's rounds."""
    lives: dict[tuple[str, str, str], list[Account]] = {}
    for row in rows:
        lives.setdefault((row.device, row.unit, row.source), []).append(row)
    for parts in lives.values():
        # The limit that is shown is the federation's, where there is one: it has rounds.
        first = max(parts, key=lambda row: row.rounds)
        yield replace(
            first, spent=tuple(e for row in parts for e in row.spent),
            booked=tuple(e for row in parts for e in row.booked),
            rounds=sum(row.rounds for row in parts),
            without_a_sum=sum(row.without_a_sum for row in parts),
        )  # fmt: skip


def _account(owner: str, account: str, facts: JournalFacts, finished: frozenset[str]) -> Account:
    name, _, device = account.partition("/")
    unit: Unit = "segment" if name == "segment" else "speaker"
    charged = [
        r for r, charges in facts.charges.items() if account in charges and not is_local(charges)
    ]
    if owner == SERVER:
        lost = sum(r not in finished for r in charged)
    else:
        lost = sum(facts.book.state(r) != "finish" for r in charged)
    return Account(
        device or owner, unit, "server" if owner == SERVER else "device",
        facts.book.spent(account), facts.book.events(account), facts.limits.get(name, {}),
        len(charged), lost,
    )  # fmt: skip


def device_rows(rows: Sequence[Account]) -> list[DeviceBudget]:
    """Return the table of devices' budgets, the first of each unit and source."""
    shown: list[DeviceBudget] = []
    for unit, source in (("segment", "device"), ("speaker", "device"), ("speaker", "server")):
        some = [row for row in rows if (row.unit, row.source) == (unit, source)]
        for row in some[:MOST_DEVICES]:
            delta = row.limit.get("delta")
            if delta is None:
                continue
            shown.append(
                DeviceBudget(
                    device=row.device, unit=row.unit, source="server" if source == SERVER else
                    "device", spent=_finite(_epsilon(row.unit, row.spent, delta)),
                    booked=_finite(_epsilon(row.unit, row.booked, delta)),
                    epsilon_max=row.limit.get("epsilon_max"), delta=delta, rounds=row.rounds,
                    without_a_sum=row.without_a_sum,
                )
            )  # fmt: skip
    return shown


def worst_figures(rows: Sequence[Account], story: Story, recording_segments: int) -> list[Figure]:
    """Return the figure of the device that spent most, unit by unit."""
    return [
        figure
        for unit in ("segment", "speaker")
        for figure in _worst(unit, rows, story, recording_segments)
    ]


def _worst(
    unit: str, rows: Sequence[Account], story: Story, recording_segments: int
) -> Iterator[Figure]:
    # Where the server counts as well, its count is the federation's.
    some = [row for row in rows if row.unit == unit and row.limit.get("delta") is not None]
    some = [row for row in some if row.source == "server"] or some
    if not some:
        return
    candidates = [(FIGURES[unit](row.booked, row.limit["delta"]), row) for row in some[:3]]
    figure, row = max(candidates, key=lambda pair: pair[0].epsilon)
    names = sorted({event.mechanism for event in row.booked})
    known = [MECHANISMS[name] for name in names if name in MECHANISMS]
    group = None
    if unit == "segment" and recording_segments > 1:
        whole = recording_figure(row.booked, recording_segments, figure.delta)
        group = Group(size=whole.size, epsilon=_finite(whole.epsilon), delta=whole.delta)
    rates = sorted({event.sample_rate for event in row.booked})
    sampling = "; ".join(sorted({m.sampling for m in known})) or "unknown"
    if unit == "segment":
        sampling += f"; as executed with chance {', '.join(f'{r:.3g}' for r in rates)} a step"
    yield Figure(
        unit=row.unit, protects=figure.unit, relation=figure.relation, holder=row.device,
        devices=len(some), epsilon=_finite(figure.epsilon), delta=figure.delta,
        accountants=_accountants(figure), label=figure.label,
        epsilon_max=row.limit.get("epsilon_max"),
        mechanisms=[f"{m.name}: {m.description}" for m in known]
        or [f"{name}: unknown to this version" for name in names],
        sampling=sampling,
        noise_multipliers=sorted({float(event.noise_multiplier) for event in row.booked}),
        clip_norms=_clip_norms(unit, story), steps=sum(event.steps for event in row.booked),
        group=group, outsiders=_outsiders(unit),
        source="the server's count over every device that was asked"
        if row.source == "server"
        else "the devices' own budgets",
    )  # fmt: skip


def _accountants(figure: PrivacyFigure) -> list[Accountant]:
    return [
        Accountant(name=name, epsilon=_finite(value)) for name, value in figure.accountants.items()
    ]


def _clip_norms(unit: str, story: Story) -> list[float]:
    if unit == "speaker":
        return sorted({r.terms.clip_norm for r in story.rounds.values() if r.terms is not None})
    tasks = [r.task.get("segment_privacy") for r in story.rounds.values()]
    return sorted({float(task["clip_norm"]) for task in tasks if task})


def _outsiders(unit: str) -> str:
    if unit == "segment":
        return "the same figure: it is amplified by the device's own secret draws already"
    return (
        "none better is claimed: cohorts were a fixed share that the server drew and knows, not a "
        "secret Poisson sample"
    )


def epsilon_by_round(
    found: Inspection, rounds: Sequence[RoundStory]
) -> dict[str, tuple[float, float | None]]:
    """Return each charged round's (largest speaker-level epsilon so far, segment-level epsilon).

    The segment-level one is of the device that spent most in all, and None where no device's own
    budget was given.
    """
    journals = {one.owner: one.booked for one in found.ledgers if one.booked is not None}
    server = journals.pop(SERVER, None)
    sources = [server] if server is not None else list(journals.values())
    totals: dict[str, list[PrivacyEvent]] = {}
    by_round: dict[str, tuple[float, float | None]] = {}
    worst = max(
        journals.values(),
        key=lambda j: sum(e.steps * e.sample_rate**2 for e in j.book.events("segment")),
        default=None,
    )
    segments: list[PrivacyEvent] = []
    for story in rounds:
        delta = None
        for i, facts in enumerate(sources):
            delta = facts.limits.get("speaker", {}).get("delta", delta)
            for account, event in facts.charges.get(story.name, {}).items():
                if account.startswith("speaker"):
                    totals.setdefault(f"{i} {account}", []).append(event)
        if worst is not None and "segment" in worst.charges.get(story.name, {}):
            segments.append(worst.charges[story.name]["segment"])
        if delta is None or not totals:
            continue
        most = max(totals.values(), key=lambda es: sum(e.steps / e.noise_multiplier**2 for e in es))
        own = None
        if worst is not None and segments:
            own = segment_figure(segments, worst.limits["segment"]["delta"]).epsilon
        by_round[story.name] = (speaker_figure(most, delta).epsilon, own)
    return by_round


def extrapolate(rows: Sequence[Account]) -> list[Extrapolated]:
    """Return what one more round, and as many again, would cost the device that spent most."""
    shown = []
    for unit in ("segment", "speaker"):
        row = next((r for r in rows if r.unit == unit and r.booked and r.limit.get("delta")), None)
        if row is None:
            continue
        last, delta = row.booked[-1], row.limit["delta"]
        for more, what in (
            (1, "one more round like the last"),
            (row.rounds, "as many rounds again"),
        ):
            events = (*row.booked, *(last for _ in range(more)))
            shown.append(
                Extrapolated(
                    what=what, unit=row.unit, rounds=row.rounds + more,
                    epsilon=_finite(_epsilon(row.unit, events, delta)), delta=delta,
                )
            )  # fmt: skip
    return shown


def _epsilon(unit: Unit, events: Sequence[PrivacyEvent], delta: float) -> float:
    return FIGURES[unit](events, delta).epsilon if events else 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
