"""Which rounds an operator wants, and when: kept on the disk, so that a restart goes on with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically

FORMAT = 1
MAX_ROUNDS = 10_000
LEAST_EVERY_S = 60
Reason = Literal[
    "no rounds are wanted", "not yet time", "too few devices", "waiting after a failure",
    "a round is under way", "stopping",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted.

    Attributes:
        target: round to go on until, 0 for none.
        least_devices: connected devices that a round waits for.
        every_s: seconds between the beginnings of rounds; 0 begins the next when one ends.
        next_s: Unix time before which no round begins.
        stopping: whether no further round may begin, since the server is to stop.
    """

    target: int = 0
    least_devices: int = 2
    every_s: int = 0
    next_s: int = 0
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Now:
    """What is the case.

    Attributes:
        done: rounds that are committed.
        online: devices that are connected.
        time_s: Unix time.
        running: whether a ServerApp is at work.
        failures: ServerApps in a row that ended without a round.
        failed_s: when the last of these ended, Unix time.
    """

    done: int
    online: int
    time_s: int
    running: bool
    failures: int = 0
    failed_s: int = 0


def what_holds_up(plan: Plan, now: Now) -> Reason | None:
    """Return why no ServerApp is to be started now; None if one is."""
    if now.running:
        return "a round is under way"
    if plan.stopping:
        return "stopping"
    if now.done >= plan.target:
        return "no rounds are wanted"
    if now.time_s < plan.next_s:
        return "not yet time"
    if now.failures and now.time_s < now.failed_s + pause_s(now.failures):
        return "waiting after a failure"
    if now.online < plan.least_devices:
        return "too few devices"
    return None


def pause_s(failures: int) -> int:
    """Return how long to wait after so many failures in a row: 5 s, doubled, up to 10 minutes."""
    return min(600, 5 << (min(failures, 8) - 1))


def last_round(plan: Plan, done: int) -> int:
    """Return the round that a ServerApp started now goes on until; one where they are timed."""
    return min(plan.target, done + 1) if plan.every_s else plan.target


def after_start(plan: Plan, now_s: int) -> Plan:
    """Return the plan once a ServerApp was started: the next is due a whole interval later."""
    if not plan.every_s:
        return plan
    due = plan.next_s or now_s
    missed = max(0, (now_s - due) // plan.every_s)  # intervals that passed while it was off
    return replace(plan, next_s=due + (missed + 1) * plan.every_s)


def read_plan(path: Path) -> Plan:
    """Return the plan in a file; nothing is wanted where there is none.

    Raises:
        UsageError: it was damaged.
    """
    if not path.exists():
        return Plan()
    try:
        plain = json.loads(path.read_bytes())
        if plain.pop("format") != FORMAT:
            raise ValueError
        plan = Plan(**plain)
        sound = all(
            isinstance(value, bool if name == "stopping" else int) and value >= 0
            for name, value in asdict(plan).items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(
            f"{path.name} says which rounds are wanted.", "something else",
            "Say it again: chorister server run --rounds R.",
        )  # fmt: skip
    return plan


def write_plan(path: Path, plan: Plan) -> None:
    """Keep a plan.

    Raises:
        OSError: it could not be written; the old one is untouched.
    """
    write_atomically(path, json.dumps({"format": FORMAT, **asdict(plan)}).encode())


def add_rounds(plan: Plan, done: int, rounds: int, **changes: int) -> Plan:
    """Return a plan for so many rounds after those that are done or wanted already.

    Raises:
        UsageError: more than a server keeps in its list.
    """
    target = max(done, plan.target) + rounds
    if rounds < 1 or target > MAX_ROUNDS:
        raise UsageError(
            f"A federation has 1 to {MAX_ROUNDS} rounds.", f"{target}, with {done} done",
            "Ask for fewer.",
        )  # fmt: skip
    return replace(plan, target=target, stopping=False, **changes)
