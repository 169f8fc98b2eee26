"""`chorister simulate`: a whole federation on one machine."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.simulations.scenario import packaged_scenarios, read_scenario

SUMMARY = "run a whole federation on this machine"

EXAMPLES = """examples:
  chorister simulate demo --out demo
      eight synthetic voices, two rounds, a report to look at
  chorister simulate --data LibriSpeech/dev-clean --clients 20 --rounds 5 --seed 7 --out OUT
      real speech, one client per speaker
  chorister simulate mine.toml --data DIR --out OUT --resume
      go on with a run that was stopped
  chorister simulate --data DIR --private off --out PLAIN
      the same without privacy, to see its price

packaged scenarios: """


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister simulate",
        description="Simulate a federation: speakers, consent, rounds, a better shared adapter, "
        "personal voices, and a report that says what privacy it cost.",
        epilog=EXAMPLES + ", ".join(packaged_scenarios()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="?", help="a TOML file or a packaged name (default: default)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="speech; without it voices are synthesised"
    )
    parser.add_argument("--clients", type=int, metavar="N", help="how many speakers take part")
    parser.add_argument("--rounds", type=int, metavar="R", help="how many rounds")
    parser.add_argument("--seed", type=int, metavar="S", help="of everything that is drawn")
    parser.add_argument("--engine", choices=("in-process", "ray"), help="who calls the clients")
    parser.add_argument(
        "--private", choices=("on", "off"), help="off: plain averaging, as a baseline"
    )
    parser.add_argument(
        "--federated", choices=("on", "off"), help="off: each device alone, as a baseline"
    )
    parser.add_argument("--speakers", metavar="A,B", help="only these speakers")
    parser.add_argument(
        "--split", metavar="FILE:NAME", help="only the speakers of a list in a JSON file"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("OUT"), metavar="DIR", help="output folder (OUT)"
    )
    parser.add_argument("--resume", action="store_true", help="go on after the last finished round")
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    scenario = read_scenario(options.scenario, _overrides(options))

    from chorister.simulations.run import simulate

    command = "chorister simulate " + shlex.join(argv)
    record = simulate(scenario, options.data, options.out, resume=options.resume, command=command)
    if options.json:
        print_json(record)
    else:
        say(f"\nReport: {options.out / 'report.html'}")
    return 0


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    names = {
        "clients": "clients",
        "seed": "seed",
        "engine": "engine",
        "rounds": "federation.rounds",
    }
    found = {
        key: getattr(options, name)
        for name, key in names.items()
        if getattr(options, name) is not None
    }
    if options.private is not None:
        found["federation.private"] = options.private == "on"
    if options.federated is not None:
        found["federated"] = options.federated == "on"
    if options.speakers is not None:
        found["speakers"] = [name for name in options.speakers.split(",") if name]
    if options.split is not None:
        from chorister.simulations.corpus import read_split

        path, _, name = options.split.rpartition(":")
        found["speakers"] = list(read_split(path, name))
    return found
