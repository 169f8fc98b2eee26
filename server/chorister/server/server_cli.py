"""`chorister server`: its actions come from entry points of the group `chorister.server`.

An action is a function, `main(argv) -> exit status`, summed up by the first line of its docstring.
"""

from __future__ import annotations

from collections.abc import Sequence

from chorister.shared.cli import run_action

SUMMARY = "run a federation's server, and take back what a withdrawal asks for"
GROUP = "chorister.server"


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    return run_action(GROUP, "chorister server", "The operator's side of a federation.", argv)
