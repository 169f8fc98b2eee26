"""Moving a vault to another machine: one sealed file, and a vault that is used in one place.

The file holds the vault's key, items, ledgers, budget journals and the marks of rounds that were
done, under a passphrase of its own. The exported vault is marked first, and its budget journals are
put out of use under their locks, so that nothing more can be spent after they were copied; a crash
in between loses nothing, since a marked vault may be exported again. Each move has a number: a
machine takes a vault back only with a higher one than it gave it away with.

What it cannot know is whether one file was imported on two machines. The federation's own count of
each speaker's budget can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chorister.client import vault_key
from chorister.client.home import BUDGET_FILE, Home
from chorister.client.vault import MOVED_FILE, WITHDRAWN_FILE, Vault, read_marker
from chorister.client.vault_index import NONCE_BYTES, VaultError
from chorister.shared import codec
from chorister.shared.codec import Plain
from chorister.shared.errors import BadMessage, ConsentRefused, UsageError
from chorister.shared.files import exclusive_lock, sync_folder, write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import Randomness

MAGIC = b"chorister vault export 1\n"
MAX_BYTES = 2**31 - 1  # what AES-GCM takes at once
_FRAMING_BYTES = 2**20  # names and lengths, and what is noted between measuring and writing
MOVES = "moves"
_CARRIED = ("*.jsonl", "*.refusals.json", "*.begun", "*.revealed", "receipt-*", "outbox/*")
_OUT_OF_USE = ".moved"


def export_vault(home: Home, path: Path, passphrase: str, randomness: Randomness) -> int:
    """Write a vault to one sealed file, after which it is used here no more, and return the move.

    Args:
        home: opened with `even_if_ended` where it was exported before.
        path: of the file; its folder exists.
        passphrase: of the file, not of the vault.
        randomness: of salt and nonce.

    Raises:
        ConsentRefused: the speaker withdrew.
        UsageError: the file exists, cannot be written, or the vault is too large for one; of these
            only a file that cannot be written leaves the vault marked.
        VaultError: an item is damaged: then nothing was marked and nothing written.
    """
    if (home.folder / WITHDRAWN_FILE).exists():
        raise ConsentRefused(
            "A withdrawn voice goes nowhere.", "a withdrawal that was not finished",
            "Finish it: chorister consent withdraw.",
        )  # fmt: skip
    if path.exists():
        raise UsageError("An existing file is not overwritten.", str(path), "Choose another name.")
    vault = home.vault
    items = [(item, vault.get(item.name)) for item in vault.items()]
    _check_size(sum(len(data) for _, data in items), vault.folder)
    move = _mark_moved(home)
    with _journals_stopped(vault.folder):
        files: Plain = {name: file.read_bytes() for name, file in _carried(vault.folder)}
    plain = codec.encode(
        {
            "vault": vault.id,
            "key": vault.key_for_moving(),
            "move": move,
            "items": [{"name": i.name, "kind": i.kind, "data": data} for i, data in items],
            "files": files,
        }
    )
    salt, nonce = randomness.bytes(16), randomness.bytes(NONCE_BYTES)
    head = codec.encode({"salt": salt, "nonce": nonce, **vault_key.ARGON2})
    wrapping = vault_key.stretch(passphrase, salt, vault_key.ARGON2)
    sealed = AESGCM(wrapping).encrypt(nonce, plain, MAGIC + head)
    try:
        write_atomically(path, MAGIC + len(head).to_bytes(4, "big") + head + sealed)
    except OSError as error:
        raise UsageError(
            "The exported file can be written.",
            f"{path}: {error.strerror or error}",
            "Free some space or choose another place, and export again: the vault is marked as "
            "moved already, and nothing is lost.",
        ) from error
    return move


def import_vault(
    path: Path, folder: Path, file_passphrase: str, passphrase: str | None, randomness: Randomness
) -> Vault:
    """Make the vault in an exported file this machine's, and return it.

    Args:
        path: of the file.
        folder: empty, absent, or the place that this vault was once exported from.
        file_passphrase: of the file.
        passphrase: what opens the vault from now on; None for the system's keyring.
        randomness: of nonces.

    Raises:
        VaultError: no such file, cut off or altered, a wrong passphrase, or an older move than the
            one that this folder's vault was exported with.
        UsageError: the folder holds something else.
    """
    plain = _read(path, file_passphrase)
    _check_place(folder, plain)
    # Unpacked beside its place, and put there by one rename: a crash leaves all of it or nothing.
    partial = folder.with_name(f".{folder.name}.importing")
    _clear(partial)
    vault = Vault.create_with(partial, plain["key"], passphrase, randomness)
    for item in plain["items"]:
        vault.put(item["name"], item["data"], item["kind"])
    for name, data in plain["files"].items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(target, data)
    write_atomically(partial / MOVES, str(plain["move"]).encode())
    old = folder.with_name(f".{folder.name}.moved-away")
    _clear(old)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    _clear(old)
    return Vault(folder, plain["key"], randomness)


def _check_size(items_bytes: int, folder: Path) -> None:
    """Refuse a vault that fits into no file while it is still in use: marked, it would be lost."""
    size = items_bytes + sum(path.stat().st_size for _, path in _carried(folder))
    if size + _FRAMING_BYTES > MAX_BYTES:
        raise UsageError(
            "A vault is exported as one file of at most 2 GiB.",
            f"{size / 2**30:.1f} GiB",
            "Enrol with fewer recordings. Nothing was marked: the vault is in use here as before.",
        )


def _mark_moved(home: Home) -> int:
    folder = home.vault.folder
    before = read_marker(folder, MOVED_FILE)
    if before is not None:
        return int(str(before.get("move", 0)))
    move = 1
    if (folder / MOVES).exists():
        move = int((folder / MOVES).read_text(encoding="ascii")) + 1
    home.ledger.append("note", action="exported", vault=home.vault.id, move=move)
    marker = {"vault": home.vault.id, "move": move, "at_s": system_clock()}
    write_atomically(folder / MOVED_FILE, json.dumps(marker).encode())
    return move


@contextmanager
def _journals_stopped(folder: Path) -> Iterator[None]:
    """Put the budgets' journals out of use for good, and hold the ledgers while they are copied."""
    with ExitStack() as stack:
        for path in sorted(folder.rglob("*.jsonl")):
            stack.enter_context(exclusive_lock(path.with_name(f".{path.name}.lock")))
            if path.name == BUDGET_FILE:
                # Whoever has it open is refused from here on: a journal that is gone is no journal.
                path.rename(path.with_name(path.name + _OUT_OF_USE))
                sync_folder(path.parent)
        yield


def _carried(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the files beside the vault that travel, by the name that they have there."""
    for pattern in (*_CARRIED, f"*{_OUT_OF_USE}"):
        for path in sorted(folder.rglob(pattern)):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                yield name.removesuffix(_OUT_OF_USE), path


def _read(path: Path, passphrase: str) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VaultError(
            "The exported vault can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None
    body = data.removeprefix(MAGIC)
    end = 4 + int.from_bytes(body[:4], "big")
    try:
        if len(body) == len(data):
            raise ValueError
        head = codec.decode(body[4:end], max_bytes=1024)
        costs = vault_key.check_costs(head)
        wrapping = vault_key.stretch(passphrase, head["salt"], costs)
        nonce = head["nonce"]
    except (ValueError, KeyError, TypeError, BadMessage):
        raise VaultError(
            "An exported vault is a file that `chorister vault export` wrote.",
            f"{path.name}, which is something else or cut off",
            "Export the vault again, or copy the file again.",
        ) from None
    try:
        opened = AESGCM(wrapping).decrypt(nonce, body[end:], MAGIC + body[4:end])
    except (InvalidTag, ValueError):
        raise VaultError(
            "The file's passphrase opens it.",
            f"a wrong one for {path.name}, or a file that was cut off or altered",
            "Try again, or copy the file again; nothing was imported.",
        ) from None
    plain: dict[str, Any] = codec.decode(opened, max_bytes=MAX_BYTES)
    for name in plain["files"]:
        if name.startswith("/") or ".." in Path(name).parts:
            raise VaultError("A vault's files lie in its folder.", repr(name), "Do not import it.")
    return plain


def _check_place(folder: Path, plain: dict[str, Any]) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    marker = read_marker(folder, MOVED_FILE)
    if marker is None or marker.get("vault") != plain["vault"]:
        raise UsageError(
            "A vault is imported into an empty folder, or where it was once exported from.",
            f"'{folder}' with something else in it",
            "Choose another --vault.",
        )
    if (folder / WITHDRAWN_FILE).exists() or plain["move"] <= int(str(marker.get("move", 0))):
        raise VaultError(
            "A machine takes a vault back after it was used elsewhere, with what was spent there.",
            f"move {plain['move']}, where this folder gave away move {marker.get('move')}",
            "Export it where it is used now, and import that file.",
        )


def _clear(folder: Path) -> None:
    """Remove a folder of a vault that was exported, or was never finished."""
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
