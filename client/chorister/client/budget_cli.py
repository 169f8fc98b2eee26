"""`chorister budget`: what a voice has cost, what is left, and what one more round would cost."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chorister.client.home import BUDGET_FILE, FEDERATIONS, LEDGER_FILE, default_folder
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.privacy.budget import ALLOWED_UNFINISHED
from chorister.shared.privacy.crosscheck import (
    SERVER,
    DeviceFacts,
    JournalFacts,
    ServerFacts,
    compare_budgets,
    compare_with_journal,
    owner_of,
)
from chorister.shared.privacy.events import PERSONAL_MECHANISM, Epsilon, PrivacyEvent
from chorister.shared.privacy.figures import label_of
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.privacy.segment_level import (
    recording_figure,
    segment_accountant,
    segment_figure,
)
from chorister.shared.privacy.speaker_level import speaker_accountant, speaker_figure

SUMMARY = "show what a voice has cost in privacy, what is left, and what one more round would cost"
EXAMPLES = """examples:
  chorister budget
      this device's own budget
  chorister budget OUT/state/devices/cedar --server-ledger OUT/ledger.jsonl
      a device's folder, checked against what the server can show
  chorister budget OUT/state/server/budget.jsonl
      what the server counts, device by device

exit status: 0 shown, 1 the budget was altered or restored from a backup, 2 wrong usage"""
ACCOUNTANTS = {"segment": segment_accountant, "speaker": speaker_accountant}
FIGURES = {"segment": segment_figure, "speaker": speaker_figure}
RECORDING_SEGMENTS = 8
"""About 12 s of speech, as in an audit report."""
MOST_AHEAD = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One account.

    Attributes:
        account: 'segment', 'speaker', or 'speaker/DEVICE'.
        epsilon_max: the limit; None for none.
        delta: of all figures in the row.
        spent: epsilon of what was spent.
        reserved: how much more what is reserved makes it.
        left: limit less what is booked; epsilons do not add up, so rounds tell more.
        next_round: epsilon after one more round like the last.
        rounds_left: how many more like the last fit.
        personal_adapters: trainings of personal adapters among what is booked.
        label: a warning that belongs beside the figures.
    """

    account: str
    epsilon_max: float | None
    delta: float
    spent: float
    reserved: float
    left: float | None
    next_round: float | None
    rounds_left: int | None
    personal_adapters: int
    label: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A budget, as its journal tells it.

    Attributes:
        owner: the device's pseudonym, or the server.
        facts: of the journal.
        rows: one an account.
        problems: what contradicts it in the ledgers, in words.
    """

    owner: str
    facts: JournalFacts
    rows: list[Row]
    problems: list[str]


def look(path: Path, server_ledger: Path | None = None) -> Seen:
    """Return the budget at a path, checked against the ledger beside it.

    Args:
        path: a device's folder, or a journal.
        server_ledger: a copy of the server's ledger, to check it against too.

    Raises:
        UsageError: there is no journal, or it is something else.
        BadLedger: it was altered.
    """
    journal, ledger = _paths(path)
    owner, facts = read_journal(journal)
    problems = _check(owner, facts, ledger, server_ledger)
    rows = [account_row(account, facts) for account in facts.book.accounts()]
    return Seen(owner, facts, rows, problems)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    paths = budgets_of(options.path or default_folder())
    found = [look(path, options.server_ledger) for path in paths]
    together = together_of(found) if len(found) > 1 else None
    if options.json:
        plain = [_plain(seen) for seen in found]
        print_json(plain[0] if together is None else {"budgets": plain, "together": together})
    else:
        for path, seen in zip(paths, found, strict=True):
            if together is not None:
                say(f"\n{path}")
            _print(seen.owner, seen.facts, seen.rows)
        if together is not None:
            say(
                f"\nTogether, if all trained on the same segments: epsilon "
                f"{together['epsilon']:.3f} for one segment (delta {together['delta']:g}). Each "
                "budget is refused by its own limit; nothing limits this."
            )
    problems = [problem for seen in found for problem in seen.problems]
    if problems:
        raise BadLedger(
            "A budget knows every round that its device contributed to.", problems[0],
            "Put the newest copy of the budget back before this device joins any round.",
        )  # fmt: skip
    return 0


def _plain(seen: Seen) -> dict[str, Any]:
    unfinished, finished = seen.facts.book.outcomes()
    return {
        "owner": seen.owner, "limits": seen.facts.limits,
        "accounts": [asdict(row) | _figures(row, seen.facts) for row in seen.rows],
        "rounds_with_a_sum": finished, "rounds_without": unfinished, "problems": seen.problems,
    }  # fmt: skip


def _figures(row: Row, facts: JournalFacts) -> dict[str, Any]:
    """Return what each accountant says of an account, and what a recording of segments costs."""
    events = facts.book.events(row.account)
    unit = row.account.partition("/")[0]
    if not events:
        return {"accountants": {}, "recording": None}
    figure = FIGURES[unit](events, row.delta)
    each = {name: _finite(value) for name, value in figure.accountants.items()}
    recording = None
    if unit == "segment":
        whole = recording_figure(events, RECORDING_SEGMENTS, row.delta)
        recording = {"segments": whole.size, "epsilon": _finite(whole.epsilon)}
    return {"accountants": each, "recording": recording}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def together_of(found: Sequence[Seen]) -> dict[str, float]:
    """Return what all budgets of one voice come to for a segment that each of them trained on."""
    deltas = [seen.facts.limits.get("segment", {}).get("delta") for seen in found]
    # The strictest: at a larger one, all of them could look cheaper than one of them does.
    delta = min((d for d in deltas if d is not None), default=1e-3)
    events = [event for seen in found for event in seen.facts.book.events("segment")]
    return {"delta": delta, "epsilon": segment_accountant(delta)(events) if events else 0.0}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister budget", description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "path", nargs="?", type=Path, metavar="PATH",
        help="a device's folder or a budget's journal (default: this device's vault)",
    )  # fmt: skip
    parser.add_argument(
        "--server-ledger", type=Path, metavar="FILE",
        help="a copy of the server's ledger: shows whether the budget was restored from a backup",
    )  # fmt: skip
    add_output_options(parser)
    return parser


def budgets_of(path: Path) -> list[Path]:
    """Return the journals of a voice: of personal adapters, and of each federation.

    Args:
        path: the vault's folder; a journal stands for itself.
    """
    own = path / BUDGET_FILE
    joined = sorted(path.glob(f"{FEDERATIONS}/*/{BUDGET_FILE}")) if path.is_dir() else []
    return [*([own] if own.is_file() else []), *joined] or [path]


def _paths(path: Path) -> tuple[Path, Path | None]:
    """Return the journal and, if it lies beside it, the device's own ledger."""
    journal = path / BUDGET_FILE if path.is_dir() else path
    if not journal.is_file():
        raise UsageError(
            "A budget's journal can be read.", f"no {journal}",
            "No federation was joined here yet; or name the device's folder.",
        )  # fmt: skip
    ledger = journal.with_name(LEDGER_FILE)
    return journal, ledger if ledger.is_file() else None


def read_journal(journal: Path) -> tuple[str, JournalFacts]:
    """Return whose budget a journal is, and what is booked.

    Raises:
        BadLedger: it was altered.
        UsageError: it is another ledger.
    """
    facts = JournalFacts()
    whose, is_journal = owner_of(verify(read_lines(journal), on_entry=facts.follow).owner)
    if not is_journal:
        raise UsageError(
            "A budget's journal is a ledger of bookings.", f"a ledger of '{whose}' in {journal}",
            f"Give the file {BUDGET_FILE} beside it.",
        )  # fmt: skip
    return whose, facts


def _check(
    owner: str, facts: JournalFacts, ledger: Path | None, server_ledger: Path | None
) -> list[str]:
    problems: list[str] = []
    if ledger is not None and owner != SERVER:
        own = DeviceFacts()
        if verify(read_lines(ledger), on_entry=own.follow).owner == owner:
            problems += compare_with_journal(owner, own, facts)
    if server_ledger is not None:
        if not server_ledger.is_file():
            raise UsageError("A ledger can be read.", f"no file {server_ledger}", "Check the path.")
        server = ServerFacts(frozenset({owner}))
        verify(read_lines(server_ledger), on_entry=server.follow)
        problems += compare_budgets(owner, facts, server, None)
    return problems


def account_row(account: str, facts: JournalFacts) -> Row:
    """Return one account as it is shown.

    Raises:
        BadLedger: the journal does not note its limit.
    """
    unit = account.partition("/")[0]
    limit, book = facts.limits.get(unit, {}), facts.book
    delta, most = limit.get("delta"), limit.get("epsilon_max")
    if unit not in ACCOUNTANTS or delta is None:
        raise BadLedger(
            "A budget's journal notes the limit of every unit that it books.", f"none of '{unit}'",
            "Restore the budget's journal from a backup.",
        )  # fmt: skip
    epsilon = ACCOUNTANTS[unit](delta)
    spent, booked = book.spent(account), book.events(account)
    now = epsilon(booked) if booked else 0.0
    so_far = epsilon(spent) if spent else 0.0
    # A round is what the next one is likened to, where there was one.
    rounds = [e for e in booked if e.mechanism != PERSONAL_MECHANISM]
    last = (rounds or booked or (None,))[-1]
    return Row(
        account, most, delta, so_far, now - so_far, None if most is None else most - now,
        epsilon((*booked, last)) if last else None, _rounds_left(epsilon, booked, last, most),
        len(booked) - len(rounds), label_of(now),
    )  # fmt: skip


def _rounds_left(
    epsilon: Epsilon, booked: tuple[PrivacyEvent, ...], last: PrivacyEvent | None,
    most: float | None,
) -> int | None:  # fmt: skip
    """Return how many more rounds like the last fit, None for no end."""
    if most is None or last is None:
        return None

    def fits(more: int) -> bool:
        steps = PrivacyEvent(last.mechanism, last.noise_multiplier, last.sample_rate,
                             last.steps * more)  # fmt: skip
        return epsilon((*booked, steps)) <= most

    if not fits(1):
        return 0
    low, high = 1, 2
    while high < MOST_AHEAD and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _print(owner: str, facts: JournalFacts, rows: list[Row]) -> None:
    whose = "the server's count" if owner == SERVER else f"device {owner}"
    say(f"Budget of {whose}; epsilon over its whole life, unit by unit, never added")
    if not rows:
        say("Nothing is booked.")
    for row in rows:
        name = row.account.replace("/", " of device ")
        most = "no limit" if row.epsilon_max is None else f"of {row.epsilon_max:.4g}"
        say(f"\n{name} (delta {row.delta:g})")
        say(f"  spent      {row.spent:8.3f} {most}" + (f"   {row.label}" if row.label else ""))
        if not math.isclose(row.reserved, 0.0, abs_tol=1e-9):
            say(f"  reserved   {row.reserved:+8.3f} a round under way, or one that a crash ended")
        if row.personal_adapters:
            say(f"  of these   {row.personal_adapters:8} trainings of personal adapters with noise")
        figures = _figures(row, facts)
        each = ", ".join(
            f"{name} {'unbounded' if value is None else format(value, '.3f')}"
            for name, value in figures["accountants"].items()
        )
        if each:
            say(f"  booked by  {each}; the larger counts")
        if figures["recording"] is not None:
            whole = figures["recording"]["epsilon"]
            shown = "unbounded" if whole is None else f"{whole:.3f}"
            say(f"  recording  {shown:>8} for {RECORDING_SEGMENTS} segments of one together")
        if row.left is not None:
            say(f"  left       {row.left:8.3f}")
        if row.next_round is not None:
            over = row.epsilon_max is not None and row.next_round > row.epsilon_max
            say(
                f"  next round {row.next_round:8.3f} in all, if it is like the last"
                + (": refused, before any training" if over else "")
            )
        if row.rounds_left is not None:
            say(f"  rounds     {row.rounds_left:8} more like the last")
    unfinished, finished = facts.book.outcomes()
    if owner != SERVER:
        say(
            f"\n{finished} charged rounds came to a sum, {unfinished} did not (as far as known); "
            f"at {ALLOWED_UNFINISHED} more without than with one, this device stops"
        )
