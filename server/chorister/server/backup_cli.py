"""`chorister server backup` and `restore`."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chorister.server.backup import make_backup, restore
from chorister.server.inspection import read_checkpoints
from chorister.server.sealed_archive import read_header
from chorister.server.server_options import parse_server, server_parser
from chorister.shared.console import print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.randomness import SystemRandomness

BACKUP_EXAMPLES = """examples:
  chorister server backup --into /var/backups/chorister --passphrase-file FILE
      a new file with the date in its name; the server may be running
In it are ledger, budget, rounds, adapters, settings, admissions and the server's own keys, sealed
under the passphrase. The enrolment authority's key is not: it is not on this machine."""
RESTORE_EXAMPLES = """examples:
  chorister server restore FILE --passphrase-file FILE
      in place of what is there, which is moved aside
  chorister server restore FILE --checkpoint LATER.checkpoint --folder NEW
      LATER.checkpoint was written beside a later backup, and kept elsewhere: a backup that is older
      than it is refused"""


def backup(argv: Sequence[str]) -> int:
    """Write a sealed backup of ledger, budget, rounds, adapters, settings and keys."""
    parser = server_parser("backup", "Copy a server, as it is at one moment.", BACKUP_EXAMPLES)
    parser.add_argument("--into", type=Path, metavar="DIR", help="a folder (default: this one)")
    _add_passphrase(parser)
    options, folder = parse_server(parser, argv)
    into: Path = options.into or Path()
    sealed = make_backup(folder, _passphrase(options, twice=True), SystemRandomness())
    name = f"{folder.federation().name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup"
    path = into / "".join(c if c.isalnum() or c in "-._" else "_" for c in name)
    header = read_header(sealed)
    kept = path.with_suffix(".checkpoint")
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, sealed)
        write_atomically(kept, json.dumps(header["checkpoint"]).encode() + b"\n")
    except OSError as error:
        raise UsageError(
            "The backup can be written.", f"{path}: {error.strerror}", "Choose another --into."
        ) from None
    if options.json:
        print_json(
            {"file": str(path), "checkpoint_file": str(kept), "bytes": len(sealed), **header}
        )
    say(f"{path}: {len(sealed)} bytes, {header['rounds']} rounds")
    say(f"Keep its passphrase elsewhere, and {kept.name}: a later restoration is compared with it.")
    return 0


def restore_(argv: Sequence[str]) -> int:
    """Put a server back as a backup has it; one that forgets rounds is refused."""
    parser = server_parser("restore", "Restore a server that does not run.", RESTORE_EXAMPLES)
    parser.add_argument("backup", type=Path, metavar="FILE")
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="FILE",
        help="of this server's ledger, kept elsewhere (JSON); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--accept-rollback", action="store_true",
        help="although rounds are forgotten: for when nothing later is left",
    )  # fmt: skip
    _add_passphrase(parser)
    options, folder = parse_server(parser, argv)
    try:
        sealed = options.backup.read_bytes()
    except OSError as error:
        raise UsageError(
            "The backup can be read.", f"{options.backup}: {error.strerror}", "Check the path."
        ) from None
    kept = tuple(c for path in options.checkpoint for c in read_checkpoints(path))
    done = restore(
        folder, sealed, _passphrase(options), checkpoints=kept,
        accept_rollback=options.accept_rollback,
    )  # fmt: skip
    if options.json:
        print_json(
            {
                "rounds": done.rounds, "ledger_entries": done.entries, "forgot": done.forgot,
                "former": str(done.former) if done.former else None,
            }
        )  # fmt: skip
    say(f"Restored {done.rounds} rounds and {done.entries} ledger entries to {folder.root}.")
    if done.forgot:
        say(f"{done.forgot} entries are forgotten; the ledger says so. Tell the privacy officer.")
    if done.former:
        say(f"What was there is in {done.former}.")
    say("No rounds are wanted until you say so: chorister server run.")
    return 0


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE",
        help="read it from FILE's first line; asked for on a terminal otherwise",
    )  # fmt: skip


def _passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    if options.passphrase_file is not None:
        try:
            lines = options.passphrase_file.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(
                "The passphrase's file can be read.", f"{options.passphrase_file}: {error}",
                "Check the path.",
            ) from None  # fmt: skip
        return lines[0] if lines else ""
    if not sys.stdin.isatty():
        raise UsageError(
            "A passphrase is typed on a terminal, or read from a file.", "neither",
            "Give --passphrase-file FILE.",
        )  # fmt: skip
    found = getpass.getpass("Passphrase of the backup: ")
    if twice and getpass.getpass("Once more: ") != found:
        raise UsageError("Both times the same is typed.", "two passphrases", "Try again.")
    return found
