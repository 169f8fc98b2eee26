"""`chorister audit attack`: attack simulated devices, and write down how far one gets."""

from __future__ import annotations

import argparse
import base64
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import BadSettings, UsageError

EXAMPLES = """examples:
  chorister audit attack --quick --out OUT
      every attack in small, on synthetic voices: minutes
  chorister audit attack --data ../shared/data/librispeech/test-clean \\
      --split ../shared/data/librispeech/splits.json:clients --out OUT
      the figures that documents quote, on real voices: an hour or two of processor time
  chorister audit report --ledger RUN --attacks OUT/attacks.json --out report.html
      a report with them in it; OUT below the run folder is found by itself

Attacks bound a leak from below: one that fails proves nothing."""


def attack(argv: Sequence[str]) -> int:
    """Attack simulated devices: empirical epsilon, identification, membership, inversion."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    if options.canaries is not None and not 20 <= options.canaries <= 1_000_000:
        raise BadSettings(
            "An audit has 20 to 1 000 000 canaries.", f"--canaries {options.canaries}",
            "20 000 notice halved noise; 40 certify at most epsilon 2.6.",
        )  # fmt: skip
    target = options.out / "attacks.json"
    if target.exists():
        raise UsageError(
            "Measured attacks are not overwritten.", str(target), "Choose another folder."
        )
    from chorister.server.attack_record import seal_attacks
    from chorister.server.key_file import choose_signing_key
    from chorister.shared.files import write_atomically
    from chorister.simulations.attacks.plan import FULL, PARTS, QUICK
    from chorister.simulations.attacks.run import run_attacks

    plan = QUICK if options.quick else FULL
    if options.canaries is not None:
        plan = replace(plan, canaries=options.canaries)
    names = _speakers(options)
    key = choose_signing_key(options.sign_with)
    options.out.mkdir(parents=True, exist_ok=True)
    command = "chorister audit attack " + shlex.join(argv)
    found = run_attacks(
        plan, options.data, names, options.seed, command=command, version=version("chorister"),
        made_at_s=int(time.time()), parts=options.only or PARTS,
    )  # fmt: skip
    for number, picture in enumerate(found.pictures):
        name = re.sub(r"[^a-z0-9]+", "-", picture.title.lower()).strip("-")
        write_atomically(
            options.out / f"{number}-{name}.png", base64.b64decode(picture.png), mode=0o644
        )
    write_atomically(target, seal_attacks(found, key), mode=0o644)
    if options.json:
        print_json(found.model_dump(mode="json", exclude={"pictures"}))
    else:
        from chorister.simulations.attacks.table import print_table

        print_table(found)
        say(f"\n{target}, signed by key {key.verify_key().name}; spectrograms beside it")
    return 0


def _speakers(options: argparse.Namespace) -> tuple[str, ...] | None:
    if options.split and options.data is None:
        raise UsageError(
            "A split names speakers of a corpus.", "--split without --data", "Give --data DIR."
        )
    if not options.split:
        return None
    from chorister.simulations.corpus import read_split

    names: list[str] = []
    for one in options.split:
        path, _, name = one.rpartition(":")
        names += read_split(path, name)
    return tuple(names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister audit attack",
        description="Run attacks against simulated devices and write what they came to, signed: "
        "one-run audits and canary clients with planted faults, speaker identification from an "
        "update, membership in the released adapter, gradient inversion.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="speech; without it voices are synthesised"
    )
    parser.add_argument(
        "--split", action="append", metavar="FILE:NAME",
        help="only the speakers of a list in a JSON file; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--canaries", type=int, metavar="N", help="in each audit of a mechanism (20 000)"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of everything drawn (7)")
    parser.add_argument(
        "--only", action="append", metavar="PART",
        choices=("mechanisms", "training", "identification", "membership", "inversion"),
        help="one part alone: mechanisms, training, identification, membership or inversion; "
        "repeatable",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and weak: minutes, not hours")
    parser.add_argument(
        "--sign-with", type=Path, metavar="KEY.pem", help="private key; made on first use otherwise"
    )
    add_output_options(parser)
    return parser
