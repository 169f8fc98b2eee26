"""`chorister audit report`: one signed report from ledgers, to read, to print and to check."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from chorister.server.attack_record import find_attacks, read_attacks
from chorister.server.inspection import find_ledgers, read_checkpoints
from chorister.server.key_file import choose_signing_key, default_key_path, read_verify_key
from chorister.server.report_builder import build_report
from chorister.server.report_file import seal_json, seal_page
from chorister.server.report_page import print_pdf, render
from chorister.shared.console import apply_output_options, complain, say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.settings import Accountability

EXAMPLES = """examples:
  chorister audit report --ledger OUT --out report.html --json report.json --pdf report.pdf
      every ledger and budget below a run folder
  chorister audit report --ledger server.jsonl budget.jsonl --about about.toml --out report.html
      about.toml: purpose, controller, contact, legal_basis, jurisdiction, retention
  chorister audit report --ledger OUT --attacks attacks.json --out report.html
      with attacks that `chorister audit attack` measured; in a run folder they are found

The report is signed with --sign-with KEY.pem (Ed25519; `openssl genpkey -algorithm ed25519`), or
with a key that is made on first use. Contradictions are in the report, and the exit status is 1."""


def main(argv: Sequence[str]) -> int:
    """Write the signed report on budgets, consents, who saw what, and attacks."""
    options = _parser().parse_args(argv)
    # --json names a file here; what is printed stays for people.
    apply_output_options(argparse.Namespace(quiet=options.quiet, json=False))
    outputs = (options.out, options.json, options.pdf)
    if not any(outputs):
        raise UsageError(
            "A report is written somewhere.", "none of --out, --json and --pdf",
            "Give --out report.html.",
        )  # fmt: skip
    measured = options.attacks or find_attacks(options.ledger)
    attacks = read_attacks(measured) if measured else None
    about = Accountability.load(options.about) if options.about else None
    report = build_report(
        find_ledgers(options.ledger), attacks=attacks, responsible=about,
        recording_segments=options.recording_segments,
        checkpoints=[c for path in options.checkpoint for c in read_checkpoints(path)],
        keys=[read_verify_key(text) for text in options.key] or None,
        authority=read_verify_key(options.authority) if options.authority else None,
    )  # fmt: skip
    key = choose_signing_key(options.sign_with)
    page = render(report, key.verify_key())
    pdf = print_pdf(page) if options.pdf else b""
    for path, data in (
        (options.out, seal_page(page.encode(), key)),
        (options.json, seal_json(report, key)),
        (options.pdf, seal_page(pdf, key, pdf=True)),
    ):
        if path is not None:
            write_atomically(path, data, mode=0o644)
            say(f"Report: {path}")
    say(f"Signed by key {key.verify_key().name} ({key.verify_key().raw.hex()})")
    say(report.summary)
    for problem in report.problems:
        complain(problem)
    return 0 if report.sound else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister audit report",
        description="Write one signed report: privacy units and figures, what could undermine "
        "them, who saw what, consents, withdrawals, attacks, and what the ledgers prove.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--ledger", nargs="+", type=Path, required=True, metavar="LEDGER",
        help="ledgers and budgets, or folders of them",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="the same as data")
    parser.add_argument("--pdf", type=Path, metavar="FILE.pdf", help="the same as pages")
    parser.add_argument(
        "--sign-with", type=Path, metavar="KEY.pem",
        help=f"private key of whoever answers for the report ({default_key_path().name}, made on "
        "first use)",
    )  # fmt: skip
    parser.add_argument("--about", type=Path, metavar="FILE.toml", help="who answers for it")
    parser.add_argument(
        "--attacks", type=Path, metavar="FILE.json", help="measured attacks, signed"
    )
    parser.add_argument(
        "--recording-segments", type=int, default=8, metavar="M",
        help="segments of a recording, for group privacy (8: about 12 s)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--key", action="append", default=[], metavar="KEY")
    parser.add_argument("--authority", metavar="KEY")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser
