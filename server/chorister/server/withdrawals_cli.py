"""`chorister server withdrawals` and `rollback`: who withdrew, and adapters without them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chorister.server.installed import ROUND_LOCK, desk
from chorister.server.operator import ENVIRONMENT, Operator, open_operator
from chorister.server.rollback import Rollback, plan_rollback, roll_back
from chorister.server.server_folder import FOLDER_VARIABLE, ServerFolder, default_folder
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.enrolment import WithdrawalNotice
from chorister.shared.errors import UsageError
from chorister.shared.files import hold_lock


def withdrawals(argv: Sequence[str]) -> int:
    """List who withdrew and which adapters they are in, or take in a notice that came as a file."""
    parser = argparse.ArgumentParser(
        prog="chorister server withdrawals", description="Who withdrew, and what they are in."
    )
    parser.add_argument(
        "--accept", type=Path, action="append", default=[], metavar="FILE",
        help="a notice from a device's outbox; devices give theirs to the server by themselves too",
    )  # fmt: skip
    options = _parse(parser, argv)
    operator = _open(options)
    for path in options.accept:
        operator.withdrawals.accept(_notice(path), operator.now_s())
    records = operator.withdrawals.records()
    if options.json:
        print_json(
            {
                "withdrawn": [
                    {
                        "device": record.device_id,
                        "at_s": record.at_s,
                        "heard_s": record.heard_s,
                        "versions": list(record.versions),
                    }
                    for record in records
                ]
            }
        )
    for record in records:
        count = len(record.versions)
        say(f"{record.device_id} withdrew on {_day(record.at_s)}; in {count} versions")
        for version in record.versions:
            say(f"  {version[:16]}")
    if not records:
        say("Nobody withdrew.")
    return 0


def rollback(argv: Sequence[str]) -> int:
    """Return to the last shared adapter before a device, and say what must be trained again."""
    parser = argparse.ArgumentParser(
        prog="chorister server rollback",
        description="Take the versions that hold a device's delta, and those trained from them, "
        "off the list. Their files stay, and so do the budgets that were spent.",
    )
    parser.add_argument("--before", required=True, metavar="DEVICE", help="a device's pseudonym")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, and stop")
    options = _parse(parser, argv)
    operator = _open(options, changes=not options.dry_run)
    act = plan_rollback if options.dry_run else roll_back
    done = act(operator, options.before)
    if options.json:
        print_json(
            {
                "kept": done.kept.sha256,
                "dropped": [version.sha256 for version in done.dropped],
                "with_device": done.with_device,
                "contributions_to_retrain": done.contributions,
                "dry_run": options.dry_run,
            }
        )
    _tell(done, options.before, would=options.dry_run)
    return 0


def _tell(done: Rollback, device: str, *, would: bool) -> None:
    say(f"Newest version {'would be' if would else 'is now'} {done.kept.sha256[:16]}.")
    say(
        f"Dropped: {len(done.dropped)} versions, {done.with_device} with {device} in their sums, "
        "the others trained from those:"
    )
    for version in done.dropped:
        say(f"  {version.sha256[:16]} round {version.round_id}, {version.survivors} devices")
    say(
        f"To be trained again: {len(done.dropped)} rounds, {done.contributions} deltas. Budgets "
        "stay spent: new rounds cost anew. Devices that have the dropped versions keep them until "
        "the next round."
    )


def _notice(path: Path) -> WithdrawalNotice:
    try:
        return WithdrawalNotice.from_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(
            "A notice is a file from a device's outbox.", f"{path}: {error.strerror}",
            "Check the path.",
        ) from None  # fmt: skip


def _open(options: argparse.Namespace, *, changes: bool = False) -> Operator:
    """Return the desk of the server in the folder; of a simulation if the environment says so."""
    if os.environ.get(ENVIRONMENT, "installed") != "installed":
        return open_operator()
    folder = ServerFolder(options.folder)
    folder.server_settings()
    if changes and not hold_lock(folder.state / ROUND_LOCK, 0.0):
        raise UsageError(
            "Versions are taken back while no round is under way.", "a ServerApp at work",
            "Wait for it, or: chorister server stop.",
        )  # fmt: skip
    return desk(folder)


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    parser.add_argument(
        "--folder", type=Path, default=default_folder(), metavar="DIR",
        help=f"the server's (default: {FOLDER_VARIABLE}, or ~/.local/share/chorister/server)",
    )  # fmt: skip
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
