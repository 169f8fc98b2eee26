"""`chorister vault`: check it, change its passphrase, move it to another machine."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chorister.client import home
from chorister.client.vault_move import export_vault, import_vault
from chorister.shared.cli import run_action
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    complain,
    print_json,
    say,
)
from chorister.shared.randomness import SystemRandomness

SUMMARY = "check the vault, change its passphrase, move it to another machine"
GROUP = "chorister.vault"


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    purpose = "What this machine keeps of a voice, encrypted at rest."
    return run_action(GROUP, "chorister vault", purpose, argv)


def verify(argv: Sequence[str]) -> int:
    """Open every item and check permissions; exit status 1 if anything is damaged."""
    parser = _parser("verify", "Open every item of the vault, and check who can read its folder.")
    parser.add_argument(
        "--repair", action="store_true", help="make the index anew from the items that open"
    )
    options = _parse(parser, argv)
    vault = home.open_vault_from(options)
    found = vault.repair() if options.repair else vault.verify()
    kinds = Counter(item.kind for item in found.sound)
    if options.json:
        print_json(
            {
                "vault": vault.id,
                "sound": len(found.sound),
                "damaged": list(found.damaged),
                "leftovers_removed": found.leftovers,
                "kinds": dict(kinds),
                "bytes": sum(item.size for item in found.sound),
            }
        )
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    say(f"{vault.folder}: {len(found.sound)} items open ({listed or 'none'})")
    if found.leftovers:
        say(f"Removed {found.leftovers} files that a crash had left behind; they were no items.")
    for name in found.damaged:
        complain(f"'{name}' does not open: altered, cut off or missing. Restore it from a backup.")
    return 1 if found.damaged else 0


def change_passphrase(argv: Sequence[str]) -> int:
    """Change what opens the vault; a crash leaves the old passphrase or the new one."""
    parser = _parser(
        "change-passphrase",
        "Seal the vault's key under another passphrase, or under the system's keyring. An old copy "
        "of the folder still opens with the old passphrase.",
        creates=True,
    )
    parser.add_argument(
        "--new-passphrase-file", type=Path, metavar="FILE", help="read the new one from FILE"
    )
    options = _parse(parser, argv)
    vault = home.open_vault_from(options)
    vault.change_passphrase(_new(options, options.new_passphrase_file))
    say(f"{vault.folder}: " + ("opens by the keyring" if options.keyring else "new passphrase"))
    return 0


def export(argv: Sequence[str]) -> int:
    """Write the vault to one sealed file, to be used on another machine and here no more."""
    parser = _parser(
        "export",
        "Write everything to one file under a passphrase of its own: items, ledger, budget. From "
        "then on this machine trains, converts and spends nothing with this vault.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    _add_file_passphrase(parser)
    options = _parse(parser, argv)
    mine = home.open_from(options, even_if_ended=True)
    passphrase = _of_file(options, new=True)
    move = export_vault(mine, options.file, passphrase, SystemRandomness())
    size = options.file.stat().st_size
    if options.json:
        print_json({"file": str(options.file), "vault": mine.vault.id, "move": move, "bytes": size})
    say(
        f"{options.file}: {size / 2**20:.1f} MiB. The vault here is marked as moved and refuses "
        f"use. There: chorister vault import {options.file.name}"
    )
    say("Import it once: two machines with one budget would spend it twice. Then delete the file.")
    say(
        "The file, and this folder, still hold the key: whoever withdraws deletes the file, and "
        f"runs `chorister consent withdraw --vault '{mine.folder}'` here too."
    )
    return 0


def import_(argv: Sequence[str]) -> int:
    """Make an exported vault this machine's."""
    parser = _parser("import", "Unpack an exported vault here, all of it or nothing.", creates=True)
    parser.add_argument("file", type=Path, metavar="FILE")
    _add_file_passphrase(parser)
    options = _parse(parser, argv)
    folder = home.vault_folder(options)
    of_file = _of_file(options, new=False)
    vault = import_vault(
        options.file, folder, of_file, _new(options, home.named_file(options)), SystemRandomness()
    )
    if options.json:
        print_json({"folder": str(folder), "vault": vault.id, "items": len(vault.items())})
    say(f"{folder}: {len(vault.items())} items, with ledger and budget as they were left")
    return 0


def _parser(action: str, description: str, *, creates: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"chorister vault {action}", description=description)
    home.add_vault_options(parser, creates=creates)
    add_output_options(parser)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options


def _add_file_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file-passphrase-file", type=Path, metavar="FILE",
        help="read the exported file's own passphrase from FILE",
    )  # fmt: skip


def _of_file(options: argparse.Namespace, *, new: bool) -> str:
    """Return the exported file's own passphrase."""
    path: Path | None = options.file_passphrase_file
    what = "exported file"
    if new:
        return home.choose_passphrase(path, what)
    found = home.read_passphrase(path)
    return home.ask(f"Passphrase of the {what}: ") if found is None else found


def _new(options: argparse.Namespace, path: Path | None) -> str | None:
    return None if options.keyring else home.choose_passphrase(path, "vault")
