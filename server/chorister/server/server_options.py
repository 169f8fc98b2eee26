"""What the actions of `chorister server` have in common: the folder, and how they print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from chorister.server.server_folder import FOLDER_VARIABLE, ServerFolder, default_folder
from chorister.shared.console import add_output_options, apply_output_options


def server_parser(action: str, description: str, examples: str = "") -> argparse.ArgumentParser:
    """Return a parser with --folder, --quiet and --json."""
    parser = argparse.ArgumentParser(
        prog=f"chorister server {action}", description=description, epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=default_folder(), metavar="DIR",
        help=f"the server's (default: {FOLDER_VARIABLE}, or ~/.local/share/chorister/server)",
    )  # fmt: skip
    add_output_options(parser)
    return parser


def parse_server(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, ServerFolder]:
    """Return the options and the folder that they name; obey --quiet and --json from here on."""
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options, ServerFolder(options.folder)
