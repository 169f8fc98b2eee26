"""`chorister server run` and `stop`: which rounds are wanted, and when."""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from chorister.server.conductor import count_rounds
from chorister.server.installed import read_json
from chorister.server.plan import LEAST_EVERY_S, Plan, add_rounds, read_plan, write_plan
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, read_rounds
from chorister.server.server_folder import ServerFolder
from chorister.server.server_options import parse_server, server_parser
from chorister.server.snapshot import take_snapshot
from chorister.shared.console import print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.files import is_locked

RUN_EXAMPLES = """examples:
  chorister server run --rounds 20 --when 8
      twenty rounds, each once eight devices are connected; shows them as they end
  chorister server run --rounds 30 --when 8 --every 24h --at 02:00 --detach
      one a night, beginning with the next 2 o'clock; a night with too few devices waits for them
  chorister server run --cancel
      no further round; one that is under way ends as it would"""
STOP_WAIT_S = 3600.0
_SPAN = re.compile(r"([0-9]+)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def run(argv: Sequence[str]) -> int:
    """Say how many rounds are wanted, and when; the running server begins them."""
    parser = server_parser(
        "run", "Plan rounds, and show them until they are done. Ctrl-C leaves the plan as it is.",
        RUN_EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("--rounds", type=int, metavar="R", help="so many more (default: as federation.toml says)")
    add("--when", type=int, default=2, metavar="N", help="once N devices are connected (2)")
    add("--every", metavar="SPAN", help="one every so long: 30m, 12h, 7d (default: at once)")
    add("--at", metavar="HH:MM", help="not before this time of day, on this machine's clock")
    add("--cancel", action="store_true", help="want no further round")
    add("--detach", action="store_true", help="return at once")
    options, folder = parse_server(parser, argv)
    settings = folder.federation()
    folder.server_settings()
    done, plan = count_rounds(folder), read_plan(folder.plan_file)
    if options.cancel:
        plan = replace(plan, target=done, every_s=0, next_s=0)
        write_plan(folder.plan_file, plan)
        _print_plan(options, plan, done)
        say(f"No round after {done} is wanted.")
        return 0
    if options.when < 2:
        raise UsageError("A round needs two devices or more.", str(options.when), "Raise --when.")
    rounds = settings.rounds if options.rounds is None else options.rounds
    plan = add_rounds(
        plan, done, rounds, least_devices=options.when,
        every_s=_span_s(options.every), next_s=_at_s(options.at),
    )  # fmt: skip
    write_plan(folder.plan_file, plan)
    running = take_snapshot(folder).running
    if options.detach or not running:
        _print_plan(options, plan, done)
    say(f"Rounds {done + 1} to {plan.target} are wanted.")
    if not running:
        say("No server is running; they begin once it is: chorister server start")
        return 0
    return 0 if options.detach else _show(options, folder, plan, done)


def stop(argv: Sequence[str]) -> int:
    """Stop the server: after the round that is under way, or at once with --now."""
    parser = server_parser(
        "stop", "Stop the running server. With --now the round under way is aborted when it is "
        "started again; its budget stays charged.",
    )  # fmt: skip
    parser.add_argument("--now", action="store_true", help="do not wait for the round to end")
    options, folder = parse_server(parser, argv)
    pid = read_json(folder.status_file).get("pid")
    # The file of one that was killed names a process that may be another's by now.
    if not isinstance(pid, int) or not is_locked(folder.lock_file) or not _alive(pid):
        raise UsageError(
            "A running server can be stopped.", f"none in '{folder.root}'", "There is none to stop."
        )
    if options.now:
        os.kill(pid, signal.SIGTERM)
    else:
        write_plan(folder.plan_file, replace(read_plan(folder.plan_file), stopping=True))
        say("It stops after the round that is under way.")
    end = time.monotonic() + STOP_WAIT_S
    while is_locked(folder.lock_file):
        if time.monotonic() > end:
            raise UsageError(
                "A server that is told to stop does.", f"process {pid}, still there after an hour",
                "See its log, or use --now.",
            )  # fmt: skip
        time.sleep(0.3)
    if options.json:
        print_json({"stopped": True, "pid": pid})
    say("Stopped.")
    return 0


def _show(options: argparse.Namespace, folder: ServerFolder, plan: Plan, shown: int) -> int:
    """Print rounds as they end, until the plan is fulfilled, changed, or the server ends."""
    said = None
    while True:
        snapshot = take_snapshot(folder)
        for record in snapshot.rounds[shown:]:
            _print_round(record)
        shown = len(snapshot.rounds)
        if shown >= plan.target or snapshot.plan.target != plan.target:
            break
        if not snapshot.running:
            say("The server ended; it goes on with the plan when it is started again.")
            return 1
        # What the server said last may be older than the plan.
        if snapshot.holds_up not in (said, None, "a round is under way", "no rounds are wanted"):
            wanted = f" ({snapshot.online} of {plan.least_devices} are connected)"
            few = snapshot.holds_up == "too few devices"
            say(f"Waiting: {snapshot.holds_up}{wanted if few else ''}.")
        said = snapshot.holds_up
        time.sleep(1.0)
    records = read_rounds(folder.state / ROUNDS_FILE)[-(plan.target) :]
    if options.json:
        print_json({"rounds": [r.status for r in records], "target": plan.target})
    return 0 if records and records[-1].status == "finished" else 1


def _print_plan(options: argparse.Namespace, plan: Plan, done: int) -> None:
    if options.json:
        print_json({"target": plan.target, "done": done, "next_s": plan.next_s})


def _print_round(record: RoundRecord) -> None:
    cost = (
        "" if record.epsilon_speaker is None else f", epsilon so far {record.epsilon_speaker:.2f}"
    )
    if record.status == "finished":
        say(
            f"Round {record.round}: {record.survivors} of {record.cohort} devices in the sum, "
            f"{record.seconds:.0f} s{cost}; adapter {record.adapter_sha256[:16]}"
        )
    else:
        say(f"Round {record.round} came to nothing: {record.reason}{cost}")


def _span_s(text: str | None) -> int:
    if text is None:
        return 0
    found = _SPAN.fullmatch(text)
    seconds = int(found.group(1)) * _UNIT_S[found.group(2)] if found else 0
    if seconds < LEAST_EVERY_S:
        raise UsageError(
            "A span is a number with s, m, h or d, a minute or more.", repr(text)[:40],
            "Write for example 30m, 12h or 7d.",
        )  # fmt: skip
    return seconds


def _at_s(text: str | None) -> int:
    if text is None:
        return 0
    try:
        at = datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise UsageError(
            "A time of day is HH:MM.", repr(text)[:40], "Write for example 02:00."
        ) from None
    now = datetime.now().astimezone()
    due = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return int((due if due > now else due + timedelta(days=1)).timestamp())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
