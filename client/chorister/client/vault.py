"""What a device keeps, encrypted at rest: keys, certificate, consent, speaker profile, adapter.

One folder, one sealed file an item, and `vault.json` with the key that seals them, itself sealed
under a passphrase. Deleting that one file makes all others unreadable, which is what a withdrawal
needs on disks that keep copies of deleted blocks. It protects a switched-off machine, not one with
an intruder on it.

AES-256-GCM (NIST SP 800-38D) with a random nonce a write; Argon2id with the second recommended
option of RFC 9106.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chorister.shared.errors import ChoristerError, UsageError
from chorister.shared.files import sync_folder, write_atomically
from chorister.shared.randomness import Randomness

FORMAT = 1
KEY_FILE = "vault.json"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
SUFFIX = ".sealed"
NONCE_BYTES = 12
ARGON2 = {"iterations": 3, "lanes": 4, "memory_kib": 65_536}


class VaultError(ChoristerError):
    """A vault is missing, damaged, open to others, or its passphrase is wrong."""


class Vault:
    """An open vault.

    Use `create` or `open`. It holds its key in memory as long as it lives.
    """

    def __init__(self, folder: Path, key: bytes, randomness: Randomness) -> None:
        self._folder = folder
        self._cipher = AESGCM(key)
        self._randomness = randomness

    def __repr__(self) -> str:
        return f"Vault({self._folder.name!r})"

    @classmethod
    def create(cls, folder: Path, passphrase: str, randomness: Randomness) -> Vault:
        """Return a new vault in a folder that is empty or absent.

        Raises:
            UsageError: the folder is not empty, or the passphrase is.
        """
        if not passphrase:
            raise UsageError("A vault has a passphrase.", "an empty one", "Choose a longer one.")
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(
                "A new vault needs an empty folder.",
                f"'{folder}' with files in it",
                "Choose another folder, or open the vault that is there.",
            )
        _make_private(folder)
        key, salt, nonce = (randomness.bytes(n) for n in (32, 16, NONCE_BYTES))
        wrapping = AESGCM(_stretch(passphrase, salt, ARGON2))
        plain = {
            "format": FORMAT,
            "kdf": "argon2id",
            "salt": salt.hex(),
            **ARGON2,
            "sealed_key": (nonce + wrapping.encrypt(nonce, key, KEY_FILE.encode())).hex(),
        }
        write_atomically(folder / KEY_FILE, json.dumps(plain, indent=1).encode())
        return cls(folder, key, randomness)

    @classmethod
    def open(cls, folder: Path, passphrase: str, randomness: Randomness) -> Vault:
        """Return the vault in a folder.

        Raises:
            VaultError: there is none, others can read the folder, it is damaged, or the passphrase
                is wrong (a damaged key file and a wrong passphrase look the same).
        """
        path = folder / KEY_FILE
        if not path.exists():
            raise VaultError(
                f"A vault is a folder with {KEY_FILE}.", f"none in '{folder}'", "Enrol first."
            )
        _check_private(folder)
        try:
            plain = json.loads(path.read_bytes())
            if plain["format"] != FORMAT or plain["kdf"] != "argon2id":
                raise ValueError
            salt, sealed = bytes.fromhex(plain["salt"]), bytes.fromhex(plain["sealed_key"])
            costs = {name: int(plain[name]) for name in ARGON2}
            # A forged file may make this slow, but not fill the memory.
            if any(not 1 <= costs[name] <= 16 * ARGON2[name] for name in ARGON2):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise VaultError(
                f"{KEY_FILE} has format {FORMAT} with an Argon2id key.",
                "something else",
                "Restore it from a backup, or open it with the version that wrote it.",
            ) from None
        try:
            wrapping = AESGCM(_stretch(passphrase, salt, costs))
            key = wrapping.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], KEY_FILE.encode())
        except (InvalidTag, ValueError):
            raise VaultError(
                "The passphrase opens the vault.",
                f"a wrong one for '{folder}', or a damaged {KEY_FILE}",
                "Try again; without the passphrase nobody can open it.",
            ) from None
        return cls(folder, key, randomness)

    @classmethod
    def with_key(cls, folder: Path, key: bytes, randomness: Randomness) -> Vault:
        """Return a vault whose 32-byte key is kept elsewhere: a system keyring, or a simulation.

        Raises:
            VaultError: others can read the folder.
        """
        if not folder.exists():
            _make_private(folder)
        _check_private(folder)
        return cls(folder, key, randomness)

    def put(self, name: str, data: bytes) -> None:
        """Seal one item; a crash leaves the old one or the new one.

        Args:
            name: lower-case letters, digits and `_ . -`, at most 64.
            data: any bytes.

        Raises:
            UsageError: another kind of name.
            OSError: it could not be written; the old item is untouched.
        """
        path = self._path(name)
        nonce = self._randomness.bytes(NONCE_BYTES)
        write_atomically(path, nonce + self._cipher.encrypt(nonce, data, _bound(name)))

    def get(self, name: str) -> bytes:
        """Return one item.

        Raises:
            VaultError: there is none of this name, or it was altered, cut off or swapped.
            UsageError: not a name.
        """
        try:
            sealed = self._path(name).read_bytes()
        except FileNotFoundError:
            raise VaultError(
                f"The vault holds '{name}'.", f"only {', '.join(self.names()) or 'nothing'}",
                "Enrol or personalise first.",
            ) from None  # fmt: skip
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(name))
        except (InvalidTag, ValueError):
            raise VaultError(
                "Every item in the vault is as it was sealed.",
                f"'{name}' altered, cut off, swapped or sealed under another key",
                "Restore the vault from a backup.",
            ) from None

    def has(self, name: str) -> bool:
        """Return whether there is an item of this name."""
        return self._path(name).exists()

    def names(self) -> tuple[str, ...]:
        """Return the names of all items, sorted."""
        return tuple(sorted(p.name.removesuffix(SUFFIX) for p in self._folder.glob(f"*{SUFFIX}")))

    def delete(self, name: str) -> None:
        """Remove one item if it is there."""
        self._path(name).unlink(missing_ok=True)
        sync_folder(self._folder)

    def destroy(self) -> None:
        """Remove the key, then every item: what a disk may keep of them cannot be read any more.

        Other files in the folder (the ledger, the budget's journal) stay: they outlive the voice.
        """
        (self._folder / KEY_FILE).unlink(missing_ok=True)
        sync_folder(self._folder)
        for name in self.names():
            self._path(name).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise UsageError(
                "An item's name has lower-case letters, digits and _ . -, at most 64.",
                repr(name)[:80],
                "Rename it.",
            )
        return self._folder / f"{name}{SUFFIX}"


def _bound(name: str) -> bytes:
    return b"chorister vault 1\x00" + name.encode()


def _stretch(passphrase: str, salt: bytes, costs: dict[str, int]) -> bytes:
    kdf = Argon2id(
        salt=salt,
        length=32,
        iterations=costs["iterations"],
        lanes=costs["lanes"],
        memory_cost=costs["memory_kib"],
    )
    return kdf.derive(passphrase.encode())


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _check_private(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        raise VaultError(
            "Only its owner can open a vault's folder (mode 700).",
            f"mode {mode:o} on '{folder}'",
            f"Run: chmod 700 '{folder}'",
        )
