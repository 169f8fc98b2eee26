"""`chorister status`: the last rounds, the budget, the connection, and why it is not training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from chorister.client import home
from chorister.client.status import Part, parts, vault_state
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    printable,
    say,
)

SUMMARY = "show what this device does in its federations, and why it is not training now"
_EXAMPLES = """examples:
  chorister status
  chorister status --json

No passphrase is needed: what is shown holds no secret and no voice. `chorister budget` says more of
the figures, `chorister consent show` what your consent covers."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister status", description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--vault", type=Path, metavar="DIR",
        help=f"the vault (default: {home.FOLDER_VARIABLE}, or ~/.local/share/chorister/vault)",
    )  # fmt: skip
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    folder = home.vault_folder(options)
    state, found = vault_state(folder), parts(folder)
    if options.json:
        print_json({"vault": state, "federations": [asdict(part) for part in found]})
        return 0
    say(f"Vault {folder}: {state}")
    if not found:
        say("No federation yet. To join one: chorister join --invite FILE")
    for part in found:
        _print(part)
    return 0


def _print(part: Part) -> None:
    since = "" if part.since_s is None else f" since {_time(part.since_s)}"
    say(f"\n{printable(part.federation)}, as {part.device or 'a device that was not opened yet'}")
    say(f"  now      {part.state}{since}{': ' + part.reason if part.reason else ''}")
    say(f"  rounds   {part.rounds_in_all} in all")
    for seen in part.rounds:
        done = {"applied": "applied, and no more", "contributed": "contributed, no sum seen"}
        name = printable(seen.round_id)
        say(f"    {_time(seen.began_s)}  {name}: {done.get(seen.last, 'done')}")
        if seen.judged is not None:
            say(printable(f"      the adapter on your own speech: {seen.judged}"))
        for why in seen.refusals:
            say(printable(f"      refused: {why}"))
    for row in part.budget:
        most = "no limit" if row.epsilon_max is None else f"of {row.epsilon_max:g}"
        left = "" if row.rounds_left is None else f", {row.rounds_left} more rounds like the last"
        say(
            f"  budget   {row.account}: epsilon {row.spent + row.reserved:.3f} {most} at delta "
            f"{row.delta:g}{left}" + (f" ({row.label})" if row.label else "")
        )
    for why in part.refusals:
        say(printable(f"  refused  {why}"))


def _time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M")
