"""What this device did and does in its federations, read from files that need no passphrase."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorister.client.budget_cli import Row, account_row, read_journal
from chorister.client.daemon import LOCK_FILE, STATUS_FILE, is_paused
from chorister.client.home import BUDGET_FILE, FEDERATIONS, LEDGER_FILE, exists
from chorister.client.vault import MOVED_FILE, WITHDRAWN_FILE
from chorister.shared.files import is_locked
from chorister.shared.privacy.ledger import Chain
from chorister.shared.privacy.ledger_file import read_lines

LAST_ROUNDS = 5


@dataclass(slots=True)
class RoundSeen:
    """One round as this device's ledger shows it.

    Attributes:
        round_id: which.
        began_s: when this device applied, Unix time.
        last: the last step that it did: applied, contributed or revealed.
        trained_from: digest of the adapter that it trained from; None before that.
        judged: what that adapter does to the speaker's held-out speech, in words.
        refusals: why it refused something in it.
    """

    round_id: str
    began_s: int
    last: str = "applied"
    trained_from: str | None = None
    judged: str | None = None
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """This device's part in one federation.

    Attributes:
        federation: its name; a digest where nothing was done there yet.
        device: its pseudonym.
        state: running's own word, 'not running', or 'stopped'.
        reason: why it is not training now; '' where it may.
        since_s: of that state, Unix time; None where it is unknown.
        rounds: the last ones, newest first.
        rounds_in_all: how many it applied for.
        refusals: the last ones outside of rounds, newest first.
        budget: accounts.
    """

    federation: str
    device: str
    state: str
    reason: str
    since_s: int | None
    rounds: tuple[RoundSeen, ...]
    rounds_in_all: int
    refusals: tuple[str, ...]
    budget: tuple[Row, ...]


def vault_state(folder: Path) -> str:
    """Return 'none', 'in use', 'withdrawn' or 'moved to another machine'."""
    if (folder / WITHDRAWN_FILE).exists():
        return "withdrawn"
    if not exists(folder):
        return "none"
    return "moved to another machine" if (folder / MOVED_FILE).exists() else "in use"


def parts(folder: Path) -> tuple[Part, ...]:
    """Return this device's parts in all federations that it has files of.

    Args:
        folder: of the vault.

    Raises:
        BadLedger: a ledger or a budget's journal was altered.
    """
    return tuple(_part(folder, own) for own in sorted((folder / FEDERATIONS).glob("*/")))


def is_running(own: Path) -> bool:
    """Return whether a process takes part now: the operating system knows who holds the lock."""
    return is_locked(own / LOCK_FILE)


def _part(folder: Path, own: Path) -> Part:
    rounds: dict[str, RoundSeen] = {}
    refusals: list[str] = []
    name, device = own.name, ""
    chain = Chain()
    if (own / LEDGER_FILE).exists():
        for line in read_lines(own / LEDGER_FILE):
            if not line.endswith(b"\n"):
                break  # a crash left it unfinished: it was never reported as written
            entry = chain.follow(line[:-1])
            if entry.index == 0:
                name, device = str(entry.fields["federation"]), str(entry.fields["owner"])
            _follow(entry.kind, entry.fields, entry.time_s, rounds, refusals)
    state, reason, since_s = _state(folder, own)
    budget: tuple[Row, ...] = ()
    if (own / BUDGET_FILE).exists():
        _, facts = read_journal(own / BUDGET_FILE)
        budget = tuple(account_row(account, facts) for account in facts.book.accounts())
    last = tuple(rounds.values())[: -LAST_ROUNDS - 1 : -1]
    return Part(
        name, device, state, reason, since_s, last, len(rounds),
        tuple(refusals[: -LAST_ROUNDS - 1 : -1]), budget,
    )  # fmt: skip


def _follow(
    kind: str, fields: Mapping[str, Any], time_s: int, rounds: dict[str, RoundSeen],
    refusals: list[str],
) -> None:  # fmt: skip
    name = str(fields.get("round", ""))
    if kind == "round":
        seen = rounds.setdefault(name, RoundSeen(name, time_s))
        seen.last = str(fields.get("action"))
        seen.trained_from = fields.get("adapter", seen.trained_from)
    elif kind == "note" and name in rounds and "found" in fields:
        rounds[name].judged = str(fields["found"])
    elif kind == "refusal":
        why = str(fields.get("found") or fields.get("reason"))
        if name in rounds:
            rounds[name].refusals = (*rounds[name].refusals, why)
        else:
            refusals.append(why)


def _state(folder: Path, own: Path) -> tuple[str, str, int | None]:
    if (folder / WITHDRAWN_FILE).exists() and not is_running(own):
        return "not running", "the speaker withdrew", None
    if not is_running(own):
        why = "it was paused, and is not running" if is_paused(folder) else "it is not running"
        return "not running", f"{why} (chorister join)", None
    try:
        plain = json.loads((own / STATUS_FILE).read_bytes())
        state, reason, since_s = str(plain["state"]), str(plain["reason"]), int(plain["since_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return "running", "", None
    if state == "connected" and not reason:
        reason = "a round is under way" if plain.get("in_round") else "the server asks for no round"
    return state, reason, since_s
