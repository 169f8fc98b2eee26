"""`chorister doctor`: whether this machine can take part and convert, and what to do where not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from chorister.client import home
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import ChoristerError

if TYPE_CHECKING:
    from pathlib import Path

    from chorister.client.doctor_checks import Check

SUMMARY = "check what this machine needs, and measure how fast it trains and converts"
_EXAMPLES = """examples:
  chorister doctor
  chorister doctor --json --no-speed
  chorister doctor --device cpu          measure the CPU where there is a GPU

Nothing is changed and nothing is sent. The vault is opened only where its passphrase needs no
question (keyring, or --passphrase-file). Exit status: 1 if something is missing that is needed."""
_MARKS = {"good": "ok     ", "note": "note   ", "missing": "MISSING"}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister doctor", description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--no-speed", action="store_true", help="measure nothing")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="to measure"
    )
    home.add_vault_options(parser)
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    found = _look(options)
    speed = None
    if not options.no_speed and not _lacks(found, "torch", "onnx", "opacus", "base model"):
        say("Measuring with made-up speech ...")
        from chorister.client.doctor_speed import measure_speed

        speed = measure_speed(options.device)
    healthy = all(check.state != "missing" for check in found)
    if options.json:
        print_json(
            {
                "healthy": healthy, "checks": [asdict(check) for check in found],
                "speed": None if speed is None else asdict(speed),
            }
        )  # fmt: skip
    for check in found:
        say(f"{_MARKS[check.state]} {check.name:<24} {check.found}")
        if check.advice:
            say(f"{'':<8}{'':<24} -> {check.advice}")
    if speed is not None:
        say(
            f"A round of {speed.segments} segments trains in {speed.round_s:.1f} s on "
            f"{speed.device}; waiting for the others comes on top."
        )
        say(f"Converting takes {speed.convert_rtf:.2f} s for a second of speech, on one thread.")
    say("Ready." if healthy else "Something is missing: see above.")
    return 0 if healthy else 1


def _look(options: argparse.Namespace) -> list[Check]:
    from chorister.client import doctor_checks as checks

    folder = home.vault_folder(options)
    found = checks.packages()
    if not _lacks(found, "torch", "onnxruntime"):
        found += [*checks.accelerators(), checks.base_weights()]
    state = checks.vault(folder)
    found += [state, *(_inside(options, folder) if state.state == "good" else [])]
    found += [checks.microphone(), checks.clock(folder), checks.disk(folder)]
    return [*found, *checks.conditions()]


def _inside(options: argparse.Namespace, folder: Path) -> list[Check]:
    from chorister.client.doctor_checks import Check, consent_and_voice
    from chorister.client.vault_key import uses_keyring

    if not uses_keyring(folder) and home.named_file(options) is None:
        return [
            Check(
                "consent", "note", "not looked at: the vault opens with a passphrase",
                "Add --passphrase-file FILE, or see `chorister consent show`.",
            )
        ]  # fmt: skip
    try:
        return consent_and_voice(home.open_from(options))
    except ChoristerError as error:
        return [Check("consent", "missing", error.found, error.advice)]


def _lacks(found: Sequence[Check], *names: str) -> bool:
    return any(check.name in names and check.state == "missing" for check in found)
