"""`chorister audit`: its actions come from the packages that are installed."""

from __future__ import annotations

from collections.abc import Sequence

from chorister.shared.cli import run_action

SUMMARY = "check ledgers, plan a privacy budget, write and check the signed audit report"
GROUP = "chorister.audit"


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    return run_action(
        GROUP, "chorister audit", "What privacy cost, and whether anybody altered the record.", argv
    )
