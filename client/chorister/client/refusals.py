"""The refusals in a device's ledger: all are counted, and no server can fill a disk with them.

A server chooses how often it provokes one. So many of a day are written in full; after that the
device listens to no message until the next day, and a line is written at the first, and whenever
the day's number has doubled. Each line carries its running number in this ledger: where two lines
are further apart than one, those between were counted and not written.

The count lies beside the ledger and is on the disk before the line, so that a crash between the
two leaves a gap, and never a number twice. A day that lies further ahead than tomorrow is taken for
today, with its refusals: a clock that was wrong once does not close a device until that date.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard

from chorister.shared.errors import ChoristerError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger import Json, parse
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines

MOST_A_DAY = 100
_DAY_S = 86_400
_MOST = 2**53  # what JSON holds exactly everywhere


class NotListening(ChoristerError):
    """The server provoked so many refusals today that its messages are not read any more."""


@dataclass(frozen=True, slots=True)
class _Count:
    """Refusals so far: in all, and on one day (of Unix time)."""

    number: int = 0
    day: int = 0
    today: int = 0

    def at(self, now_s: int) -> _Count:
        """Return the count as it stands at a time."""
        now_day = now_s // _DAY_S
        if self.is_ahead(now_s):
            # The clock was ahead, and is right now, or the file is wrong: no wait for that date.
            return _Count(self.number, now_day, self.today)
        # A clock that was set back begins no new day: it would be one more each time.
        day = max(self.day, now_day)
        return _Count(self.number, day, self.today if day == self.day else 0)

    def is_ahead(self, now_s: int) -> bool:
        """Return whether the day lies further in the future than a clock may be set back."""
        return self.day > now_s // _DAY_S + 1


def check_patience(ledger: LedgerFile, now_s: int, most: int | None) -> None:
    """Return unless the day's refusals are used up.

    Args:
        ledger: the device's, in one federation.
        now_s: Unix time.
        most: refusals a day; None for no end, as in simulations.

    Raises:
        NotListening: they are.
        BadLedger, OSError: the count cannot be read, or where it is lost or of a day far ahead,
            not written.
    """
    if most is None:
        return
    count = _read(ledger.path)
    if count is None or count.is_ahead(now_s):
        # Written, so that the ledger is read once only, and the day that begins now also ends.
        with ledger.locked():
            count = _known(ledger.path).at(now_s)
            _write(ledger.path, count)
    today = count.at(now_s).today
    if today >= most:
        raise NotListening(
            f"After {most} refusals in a day a device reads no message until the next day.",
            f"{today} today, this one not counted",
            "Ask the operator what the server sends; the numbers of the refusals in the ledger say "
            "how many there were.",
        )  # fmt: skip


def note_refusal(ledger: LedgerFile, now_s: int, most: int | None, **fields: Json) -> None:
    """Count a refusal, and write it into the ledger unless too many of this day stand there.

    Args:
        ledger: the device's, in one federation.
        now_s: Unix time.
        most: that are written one by one on a day; None for all.
        fields: of the entry; the caller cuts what a server may have chosen.

    Raises:
        BadLedger, OSError: as of an append.
    """
    if most is None:
        ledger.append("refusal", **fields)
        return
    with ledger.locked():
        before = _known(ledger.path).at(now_s)
        count = _Count(before.number + 1, before.day, before.today + 1)
        _write(ledger.path, count)
        if _is_written(count.today, most):
            numbers: dict[str, Json] = {"number": count.number, "today": count.today}
            ledger.append_locked("refusal", fields | numbers)


def _is_written(today: int, most: int) -> bool:
    times, rest = divmod(today, most)
    return today <= most + 1 or (rest == 0 and times & (times - 1) == 0)


def _beside(ledger: Path) -> Path:
    return ledger.with_suffix(".refusals.json")


def _write(ledger: Path, count: _Count) -> None:
    write_atomically(_beside(ledger), json.dumps(asdict(count)).encode())


def _read(ledger: Path) -> _Count | None:
    """Return the count beside a ledger, None where there is none or something else."""
    try:
        plain = json.loads(_beside(ledger).read_bytes())
        if plain.keys() == {"number", "day", "today"} and all(map(_is_count, plain.values())):
            return _Count(**plain)
    except (FileNotFoundError, ValueError, AttributeError):
        pass
    return None


def _is_count(found: object) -> TypeGuard[int]:
    return type(found) is int and 0 <= found < _MOST


def _known(ledger: Path) -> _Count:
    return _read(ledger) or _in_the_ledger(ledger)


def _in_the_ledger(path: Path) -> _Count:
    """Return the count as the last numbered line has it: what came after that is forgotten."""
    count = _Count()
    for where, line in enumerate(read_lines(path) if path.exists() else ()):
        if line.endswith(b"\n"):
            entry = parse(line[:-1], where)
            number, today = entry.fields.get("number"), entry.fields.get("today")
            if entry.kind == "refusal" and _is_count(number) and _is_count(today):
                count = _Count(number, entry.time_s // _DAY_S, today)
    return count
