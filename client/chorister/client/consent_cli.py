"""`chorister consent`: its actions come from the packages that are installed."""

from __future__ import annotations

from collections.abc import Sequence

from chorister.shared.cli import run_action

SUMMARY = "look at a consent, change it, withdraw it, or measure how it is checked"
GROUP = "chorister.consent"


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    return run_action(
        GROUP, "chorister consent", "What a speaker allowed, on the speaker's own device.", argv
    )
