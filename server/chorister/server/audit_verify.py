"""`chorister audit verify`: ledgers and reports, checked offline; 1 if anything was altered."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chorister.server.inspection import (
    Inspection,
    Ledger,
    Problem,
    find_ledgers,
    inspect,
    read_checkpoints,
)
from chorister.server.key_file import read_verify_key
from chorister.server.report_file import check_report, looks_like_report
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import BadLedger
from chorister.shared.privacy.crosscheck import SERVER
from chorister.shared.signing import VerifyKey

EXAMPLES = """examples:
  chorister audit verify OUT
      every ledger and budget below a run folder, each against the others
  chorister audit verify server.jsonl device.jsonl --checkpoint kept.json --key SERVER_KEY
      a checkpoint that was kept elsewhere shows whether the end was cut off
  chorister audit verify server.jsonl --chain-only
      the chain alone: quick for millions of entries
  chorister audit verify report.html --key OFFICER_KEY
      a signed report: as it was signed, and by whom

exit status: 0 nothing was altered, 1 something was, 2 wrong usage"""


def main(argv: Sequence[str]) -> int:
    """Check ledgers, budgets and reports for any alteration."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    keys = [read_verify_key(text) for text in options.key] or None
    reports = [path for path in options.files if path.is_file() and looks_like_report(path)]
    others = [path for path in options.files if path not in reports]
    ledgers = find_ledgers(others)
    checkpoints = [c for path in options.checkpoint for c in read_checkpoints(path)]
    authority = read_verify_key(options.authority) if options.authority else None
    found = inspect(
        ledgers, checkpoints=checkpoints, keys=keys, authority=authority,
        federation=options.federation, chain_only=options.chain_only, now_s=int(time.time()),
    )  # fmt: skip
    sealed = _check_reports(found, reports, keys)
    if options.json:
        print_json(_plain(found) | {"reports": [{"file": f, "key": k} for f, k in sealed]})
    else:
        for file, key in sealed:
            say(f"{file}: as it was signed by key {key}")
        _print(found, chain_only=options.chain_only, authority=authority is not None)
    return 0 if found.sound else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister audit verify",
        description="Check ledgers, budgets and audit reports: chains, signatures, and what one "
        "ledger says against the others. Needs no network.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="LEDGER", help="ledgers, reports, or folders of them"
    )
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="FILE",
        help="a checkpoint that was kept elsewhere (JSON); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--key", action="append", default=[], metavar="KEY",
        help="public key that may sign the server's checkpoints and reports (hexadecimal digits "
        "or a file); repeatable. Without it any key is accepted and named",
    )  # fmt: skip
    parser.add_argument(
        "--authority", metavar="KEY", help="the enrolment authority's public key: checks who was "
        "certified",
    )  # fmt: skip
    parser.add_argument(
        "--federation", metavar="NAME", help="the federation that all must belong to"
    )
    parser.add_argument(
        "--chain-only", action="store_true", help="leave out all signatures and comparisons"
    )
    add_output_options(parser)
    return parser


def _check_reports(
    found: Inspection, reports: Sequence[Path], keys: Sequence[VerifyKey] | None
) -> list[tuple[str, str]]:
    """Return (file, key) of reports that are as they were signed; others are problems."""
    sealed = []
    for path in reports:
        try:
            key = check_report(path).key
            if keys is not None and key not in keys:
                raise BadLedger(
                    "A report is signed by a key that was named with --key.",
                    f"key {key.name}", "Get the key from whoever answers for the report.",
                )  # fmt: skip
            sealed.append((str(path), key.raw.hex()))
        except BadLedger as error:
            found.problems.append(Problem(str(path), str(error)))
    return sealed


def _print(found: Inspection, *, chain_only: bool, authority: bool) -> None:
    for ledger in found.ledgers:
        if ledger.verified is not None:
            say(f"{ledger.path}: {_sentence(ledger)}")
    for remark in found.remarks:
        say(f"note: {remark.file}: {remark.what}")
    if chain_only:
        say("note: signatures and comparisons were left out")
    elif not authority and any(ledger.claims for ledger in found.ledgers):
        say("note: without --authority nobody checked that the devices were certified")
    for problem in found.problems:
        say(f"ALTERED {problem.file}: {problem.what}")
    if found.sound:
        noise = " This shows who claimed what; it cannot show that a device drew its noise."
        say("Nothing was altered." + (noise if found.ledgers else ""))
    else:
        say(f"{len(found.problems)} contradictions. Do not rely on these ledgers.")


def _sentence(ledger: Ledger) -> str:
    verified = ledger.verified
    if verified is None:
        return "broken"
    whose = "the server" if ledger.owner == SERVER else f"device {ledger.owner}"
    kind = "budget" if ledger.journal else "ledger"
    parts = [f"{kind} of {whose} in '{ledger.federation}', {verified.length} entries, unbroken"]
    if verified.signed_to >= 0:
        parts.append(f"signed to entry {verified.signed_to} by {', '.join(sorted(verified.keys))}")
    if ledger.claims is not None:
        claims = ledger.claims
        parts.append(
            f"{claims.admissions} admissions, {claims.inputs} masked deltas and "
            f"{claims.withdrawals} withdrawals carry the devices' signatures, {claims.unsigned} "
            "refusals are its word alone"
        )
    parts.append(f"head {verified.head[:16]}")
    return "; ".join(parts)


def _plain(found: Inspection) -> dict[str, Any]:
    return {
        "sound": found.sound,
        "ledgers": [
            {
                "file": str(ledger.path),
                "owner": ledger.owner,
                "budget": ledger.journal,
                "federation": ledger.federation,
                "entries": ledger.verified.length if ledger.verified else None,
                "head": ledger.verified.head if ledger.verified else None,
                "signed_to": ledger.verified.signed_to if ledger.verified else None,
                "keys": sorted(ledger.verified.keys) if ledger.verified else [],
            }
            for ledger in found.ledgers
        ],
        "problems": [{"file": p.file, "problem": p.what} for p in found.problems],
        "remarks": [{"file": p.file, "remark": p.what} for p in found.remarks],
    }
