"""What a command prints: lines, tables, progress bars, or JSON and nothing else."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_QUIET = {"on": False}


class Step(Protocol):
    """Something that counts."""

    def __call__(self, done: int = 1, /) -> None:
        """Say that this much more is done."""


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options --quiet and --json."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )


def apply_output_options(options: argparse.Namespace) -> None:
    """Obey --quiet and --json from here on."""
    _QUIET["on"] = bool(options.quiet or options.json)


def say(text: str) -> None:
    """Print a line for a person, unless --quiet or --json."""
    if not _QUIET["on"]:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def printable(text: str) -> str:
    """Return what others wrote without what a terminal would obey instead of showing."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def complain(text: str) -> None:
    """Print one line on standard error, always."""
    sys.stderr.write("chorister: " + text + "\n")


def print_json(value: Any) -> None:
    """Print the JSON object that --json promises."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def progress(title: str, total: int) -> Iterator[Step]:
    """Show a bar while the block runs, on a terminal; one line when it is done otherwise.

    Args:
        title: what is being done.
        total: how many steps there are.
    """
    console = Console(stderr=True)
    if _QUIET["on"]:
        yield lambda done=1: None
        return
    if not console.is_terminal:
        say(f"{title} ...")
        yield lambda done=1: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=False) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done=1: bar.advance(task, done)
