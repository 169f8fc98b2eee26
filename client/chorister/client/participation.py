"""What a device's own files say about the rounds that it took part in, and what bounds them.

Read from the ledgers and budget journals under a folder, whatever federation they belong to, and
without any settings: a journal holds the deltas that its limits were stated at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from chorister.shared.errors import BadLedger, ChoristerError
from chorister.shared.privacy.budget import Book, Booking, Limit
from chorister.shared.privacy.figures import PrivacyFigure
from chorister.shared.privacy.ledger import Chain, Entry
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.privacy.speaker_level import speaker_figure

_FIGURES = {"segment": segment_figure, "speaker": speaker_figure}
_BUDGET_OF = "budget of "


@dataclass(frozen=True, slots=True)
class Contribution:
    """One round that a masked delta of this device was sent in.

    Attributes:
        federation: whose round.
        round_id: which.
        trained_from: digest of the shared adapter that was trained from.
        seen_after: digest of the next version that this device was sent, None if it saw none. It
            holds this contribution if the device was a survivor, which the server knows.
        revealed: whether the device went through the last exchange.
    """

    federation: str
    round_id: str
    trained_from: str
    seen_after: str | None
    revealed: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What bounds everything that one federation can have learnt.

    Attributes:
        federation: which.
        figure: by its privacy unit; figures of two units are never added.
    """

    federation: str
    figure: PrivacyFigure


def contributions(folder: Path) -> tuple[Contribution, ...]:
    """Return all rounds in the ledgers under a folder, oldest first in each.

    Raises:
        BadLedger: a ledger was altered.
    """
    found: list[Contribution] = []
    for path in sorted(folder.rglob("*.jsonl")):
        entries = _entries(path)
        if entries and not str(entries[0].fields.get("owner")).startswith(_BUDGET_OF):
            found += _in_ledger(entries)
    return tuple(found)


def bounds(folder: Path) -> tuple[Bound, ...]:
    """Return the figures of all budget journals under a folder.

    Raises:
        BadLedger: a journal was altered.
    """
    found: list[Bound] = []
    for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.moved")]):
        entries = _entries(path)
        if entries and str(entries[0].fields.get("owner")).startswith(_BUDGET_OF):
            found += _in_journal(entries)
    return tuple(found)


def _in_ledger(entries: list[Entry]) -> list[Contribution]:
    federation = str(entries[0].fields.get("federation"))
    rounds = [(entry.fields, str(entry.fields.get("round"))) for entry in entries[1:]
              if entry.kind == "round"]  # fmt: skip
    sent = [(name, str(f["adapter"])) for f, name in rounds if f.get("action") == "contributed"]
    revealed = {name for fields, name in rounds if fields.get("action") == "revealed"}
    versions = [adapter for _, adapter in sent]
    found = []
    for place, (name, adapter) in enumerate(sent):
        after = next((v for v in versions[place + 1 :] if v != adapter), None)
        found.append(Contribution(federation, name, adapter, after, name in revealed))
    return found


def _in_journal(entries: list[Entry]) -> list[Bound]:
    federation = str(entries[0].fields.get("federation"))
    # Nothing is refused here: what is booked is booked.
    nothing_refused = {unit: Limit(inf, 0.5, lambda _: 0.0) for unit in _FIGURES}
    book, deltas = Book(nothing_refused), dict[str, float]()
    for entry in entries:
        if entry.kind == "budget":
            book.apply(Booking.from_fields(entry.fields))
        elif "limits" in entry.fields:
            deltas |= _deltas(entry.fields["limits"])
    found = []
    for unit, figure_of in _FIGURES.items():
        events = book.events(unit)
        if events and unit in deltas:
            found.append(Bound(federation, figure_of(events, deltas[unit])))
    return found


def _deltas(limits: Any) -> Mapping[str, float]:
    try:
        return {str(unit): float(limit["delta"]) for unit, limit in limits.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadLedger(
            "A budget's journal says at which delta its limits are stated.",
            "something else",
            "Restore the budget's journal from a backup.",
        ) from None


def _entries(path: Path) -> list[Entry]:
    chain = Chain()
    found: list[Entry] = []
    for line in read_lines(path):
        if not line.endswith(b"\n"):
            break  # a crash left it unfinished: it was never reported as written
        try:
            found.append(chain.follow(line[:-1]))
        except ChoristerError:
            if not found:
                return []  # not a ledger
            raise
    return found
