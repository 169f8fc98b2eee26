"""What a device keeps, encrypted at rest: recordings, features, speaker vector, adapter, keys.

One folder: `vault.json` with the key, sealed under a passphrase or the system's keyring; `index.db`
with what items there are; `items/` with one sealed file an item, named by the digest of its
content. A new content is written whole before the index names it, and the old one goes afterwards,
so a crash at any byte leaves the old item or the new one. Deleting `vault.json` makes all the rest
unreadable, which is what a withdrawal needs on disks that keep copies of deleted blocks.

It protects a switched-off machine, not one with an intruder on it, and it does not notice that the
whole folder was put back as it was at an earlier time.

AES-256-GCM (NIST SP 800-38D) with a random nonce a write.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chorister.client import vault_key
from chorister.client.vault_index import INDEX_FILE, NONCE_BYTES, Index, Item, VaultError, derive
from chorister.client.vault_key import KEY_FILE
from chorister.shared import codec
from chorister.shared.errors import BadMessage, ConsentRefused, UsageError
from chorister.shared.files import exclusive_lock, sync_folder, write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import Randomness

__all__ = ["KEY_FILE", "Item", "Vault", "VaultError", "Verdict"]

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
ITEMS = "items"
_ITEM = b"chorister vault 1 item"
MOVED_FILE = "moved.json"
WITHDRAWN_FILE = "withdrawn.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        sound: items that open.
        damaged: names of items that do not.
        leftovers: files that a crash left behind; they belong to no item and hold no new content.
    """

    sound: tuple[Item, ...]
    damaged: tuple[str, ...]
    leftovers: int


class Vault:
    """An open vault.

    Use `create` or `open`. It holds its key in memory as long as it lives.
    """

    def __init__(self, folder: Path, key: bytes, randomness: Randomness) -> None:
        self.folder = folder
        self._key = key
        self._cipher = AESGCM(key)
        self._randomness = randomness
        self._index = Index(folder, key, randomness)
        self._items = folder / ITEMS
        self._items.mkdir(mode=0o700, exist_ok=True)
        # An index that is missing beside items is damage, not a vault to begin with.
        if not any(self._items.iterdir()) and not self._index.is_there():
            self._index.create()

    def __repr__(self) -> str:
        return f"Vault({self.folder.name!r})"

    @property
    def id(self) -> str:
        """Its name, 16 hexadecimal digits derived from its key; a moved vault keeps it."""
        return derive(self._key, "name").hex()[:16]

    @classmethod
    def create(cls, folder: Path, passphrase: str | None, randomness: Randomness) -> Vault:
        """Return a new vault in a folder that is empty or absent.

        Args:
            folder: made private to its owner.
            passphrase: what opens it; None for the system's keyring.
            randomness: of the key.

        Raises:
            UsageError: the folder is not empty, the passphrase is, or there is no keyring.
        """
        return cls.create_with(folder, randomness.bytes(32), passphrase, randomness)

    @classmethod
    def create_with(
        cls, folder: Path, key: bytes, passphrase: str | None, randomness: Randomness
    ) -> Vault:
        """Return a new vault under a key that exists, as one that was moved has it.

        Raises:
            UsageError: as `create`.
        """
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(
                "A new vault needs an empty folder.",
                f"'{folder}' with files in it",
                "Choose another folder, or open the vault that is there.",
            )
        _make_private(folder)
        vault_key.seal_key(folder, key, passphrase, randomness)
        return cls(folder, key, randomness)

    @classmethod
    def open(
        cls,
        folder: Path,
        passphrase: str | None,
        randomness: Randomness,
        *,
        even_if_ended: bool = False,
    ) -> Vault:
        """Return the vault in a folder.

        Args:
            folder: of the vault.
            passphrase: None where the system's keyring opens it.
            randomness: of nonces.
            even_if_ended: open it although it was moved or its consent withdrawn, to finish that.

        Raises:
            ConsentRefused: its speaker withdrew.
            VaultError: there is none, others can read the folder, it is damaged, it was moved to
                another machine, the passphrase is wrong (a damaged key file and a wrong passphrase
                look the same), or one has to wait after wrong ones.
        """
        there = (folder / KEY_FILE).exists()
        if not even_if_ended or not there:
            check_in_use(folder)
        if there:
            _check_private(folder)
        return cls(folder, vault_key.open_key(folder, passphrase), randomness)

    @classmethod
    def with_key(cls, folder: Path, key: bytes, randomness: Randomness) -> Vault:
        """Return a vault whose 32-byte key is kept elsewhere, as a simulation's is.

        Raises:
            VaultError: others can read the folder.
        """
        if not folder.exists():
            _make_private(folder)
        _check_private(folder)
        return cls(folder, key, randomness)

    def change_passphrase(self, passphrase: str | None) -> None:
        """Seal the key anew; a crash leaves the old passphrase or the new one.

        The key stays: an old copy of `vault.json` still opens with the old passphrase.

        Raises:
            UsageError: an empty passphrase, or no keyring on this machine.
        """
        with self._locked():
            vault_key.seal_key(self.folder, self._key, passphrase, self._randomness)

    def put(self, name: str, data: bytes, kind: str = "other") -> None:
        """Seal one item; a crash leaves the old one or the new one.

        Args:
            name: lower-case letters, digits and `_ . -`, at most 64.
            data: any bytes.
            kind: what it is, e.g. 'recording', 'key'.

        Raises:
            UsageError: another kind of name.
            OSError: it could not be written; the old item is untouched.
        """
        _check_name(name)
        nonce, time_s = self._randomness.bytes(NONCE_BYTES), system_clock()
        sealed = nonce + self._cipher.encrypt(nonce, _framed(name, kind, time_s, data), _ITEM)
        item = Item(name, kind, len(sealed), time_s, hashlib.sha256(sealed).hexdigest())
        with self._locked():
            before = self._index.find(name)
            write_atomically(self._path(item.sha256), sealed)
            self._index.put(item)
            if before is not None:
                self._path(before.sha256).unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        """Return one item.

        Raises:
            VaultError: there is none of this name, or it was altered, cut off or swapped.
            UsageError: not a name.
        """
        _check_name(name)
        item = self._index.find(name)
        if item is None:
            raise VaultError(
                f"The vault holds '{name}'.", f"only {', '.join(self.names()) or 'nothing'}",
                "Enrol or personalise first.",
            )  # fmt: skip
        try:
            return self._open_item(item)
        except FileNotFoundError:
            # Another process replaced it between the two reads: once more, under the lock.
            with self._locked():
                return self._open_item(self._index.find(name) or item, missing_is_damage=True)

    def has(self, name: str) -> bool:
        """Return whether there is an item of this name."""
        _check_name(name)
        return self._index.find(name) is not None

    def items(self) -> tuple[Item, ...]:
        """Return what the index knows of all items, by name."""
        return self._index.items()

    def names(self) -> tuple[str, ...]:
        """Return the names of all items, sorted."""
        return tuple(item.name for item in self.items())

    def delete(self, name: str) -> None:
        """Remove one item if it is there."""
        _check_name(name)
        with self._locked():
            before = self._index.find(name)
            if before is not None:
                self._index.delete(name)
                self._path(before.sha256).unlink(missing_ok=True)
                sync_folder(self._items)

    def verify(self) -> Verdict:
        """Open every item, and return which of them do; what a crash left behind is removed.

        Raises:
            VaultError: the index itself is damaged, or others can read the folder.
        """
        _check_private(self.folder)
        sound, damaged = [], []
        with self._locked():
            for item in self._index.items():
                try:
                    self._open_item(item, missing_is_damage=True)
                    sound.append(item)
                except VaultError:
                    damaged.append(item.name)
            leftovers = self._sweep()
        return Verdict(tuple(sound), tuple(damaged), leftovers)

    def repair(self) -> Verdict:
        """Make the index anew from the items that open, and verify the result.

        Of two contents of one item, which only a crash leaves behind, the newer is kept.

        Raises:
            VaultError: others can read the folder.
        """
        _check_private(self.folder)
        newest: dict[str, Item] = {}
        with self._locked():
            for path in sorted(self._items.iterdir()):
                try:
                    item, _ = self._unframe(path.read_bytes())
                except (InvalidTag, ValueError, BadMessage, IsADirectoryError):
                    continue
                if item.time_s >= newest.get(item.name, item).time_s:
                    newest[item.name] = item
            self._index.create()
            for item in newest.values():
                self._index.put(item)
        return self.verify()

    def key_for_moving(self) -> bytes:
        """Return the vault's key, for a copy of it that is sealed under another passphrase."""
        return self._key

    def destroy(self) -> None:
        """Remove the key, then every item: what a disk may keep of them cannot be read any more.

        Other files in the folder (the ledger, the budget's journal) stay: they outlive the voice.
        """
        destroy(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with exclusive_lock(self.folder / ".vault.lock"):
            yield

    def _open_item(self, item: Item, *, missing_is_damage: bool = False) -> bytes:
        try:
            sealed = self._path(item.sha256).read_bytes()
        except FileNotFoundError:
            if not missing_is_damage:
                raise
            sealed = b""
        except IsADirectoryError:
            sealed = b""
        try:
            found, data = self._unframe(sealed)
            if found != item:
                raise ValueError
        except (InvalidTag, ValueError, BadMessage):
            raise VaultError(
                "Every item in the vault is as it was sealed.",
                f"'{item.name}' altered, cut off, swapped or missing",
                "Restore the vault from a backup.",
            ) from None
        return data

    def _unframe(self, sealed: bytes) -> tuple[Item, bytes]:
        """Return an item and its content, from the content of its file."""
        framed = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _ITEM)
        end = 4 + int.from_bytes(framed[:4], "big")
        kinds = {"name": str, "kind": str, "time_s": int}
        head = codec.fields(codec.decode(framed[4:end]), kinds, "An item")
        sha256 = hashlib.sha256(sealed).hexdigest()
        return Item(head["name"], head["kind"], len(sealed), head["time_s"], sha256), framed[end:]

    def _sweep(self) -> int:
        """Remove the files that no row names, and return how many; the lock is held."""
        known = self._index.files()
        lost = [path for path in self._items.iterdir() if path.name not in known]
        for path in lost:
            _remove(path)
        if lost:
            sync_folder(self._items)
        return len(lost)

    def _path(self, sha256: str) -> Path:
        return self._items / sha256


def destroy(folder: Path) -> None:
    """Remove a vault's key, then its items, without opening it; what is gone already is no error.

    Args:
        folder: of the vault; its ledgers, receipts and other files stay.
    """
    vault_key.forget_key(folder)
    items = folder / ITEMS
    if items.is_dir():
        for path in items.iterdir():
            _remove(path)
        items.rmdir()
    for path in folder.glob(f"{INDEX_FILE}*"):
        _remove(path)
    sync_folder(folder)


def check_in_use(folder: Path) -> None:
    """Return unless a vault's speaker withdrew, or it was moved to another machine.

    Raises:
        ConsentRefused: withdrawn.
        VaultError: moved.
    """
    if (folder / WITHDRAWN_FILE).exists():
        raise ConsentRefused(
            "A voice is used only while its owner wants it.",
            f"the consent of the vault '{folder}' was withdrawn",
            "See `chorister consent show`; a new consent needs a new vault (`chorister enrol`).",
        )
    if (folder / MOVED_FILE).exists():
        raise VaultError(
            "A voice and its budget live on one machine.",
            f"the vault '{folder}' was exported, to be moved to another",
            "Use it there; to come back, export it there and import it here.",
        )


def read_marker(folder: Path, name: str) -> dict[str, object] | None:
    """Return what a marker file says, None if there is none; an unreadable one says nothing."""
    try:
        plain = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _remove(path: Path) -> None:
    """Remove a file, or the folder that somebody put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            "An item's name has lower-case letters, digits and _ . -, at most 64.",
            repr(name)[:80],
            "Rename it.",
        )


def _framed(name: str, kind: str, time_s: int, data: bytes) -> bytes:
    """Return what is sealed: an item's name inside, so that the index can be made anew."""
    head = codec.encode({"name": name, "kind": kind, "time_s": time_s})
    return len(head).to_bytes(4, "big") + head + data


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _check_private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise VaultError(
            "A vault is opened by the user who owns its folder.",
            f"'{folder}' of user {found.st_uid}, opened by user {os.geteuid()}",
            "Log in as its owner.",
        )
    mode = found.st_mode & 0o777
    if mode & 0o077:
        raise VaultError(
            "Only its owner can open a vault's folder (mode 700).",
            f"mode {mode:o} on '{folder}'",
            f"Run: chmod 700 '{folder}'",
        )
