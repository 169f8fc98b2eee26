"""The vault's index: which items there are, in SQLite, with nothing in it that can be read.

A row is found by a keyed digest of the item's name. Name and kind are sealed, together with size,
time and digest of the item's ciphertext: a row that was altered, or an item that was replaced by an
older copy of itself, does not verify. A commit of SQLite is the moment at which an item changes.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chorister.shared import codec
from chorister.shared.errors import BadMessage, ChoristerError
from chorister.shared.randomness import Randomness

INDEX_FILE = "index.db"
NONCE_BYTES = 12
_BUSY_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id BLOB PRIMARY KEY, size INTEGER NOT NULL, time_s INTEGER NOT NULL, sha256 TEXT NOT NULL,
    sealed BLOB NOT NULL
) WITHOUT ROWID
"""
_VERSION = 1


class VaultError(ChoristerError):
    """A vault is missing, damaged, moved, open to others, or its passphrase is wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """What the index knows of one item.

    Attributes:
        name: of the item.
        kind: what it is, e.g. 'recording'.
        size: bytes of its ciphertext.
        time_s: when it was sealed, Unix time.
        sha256: of its ciphertext, which is also the name of its file.
    """

    name: str
    kind: str
    size: int
    time_s: int
    sha256: str


class Index:
    """The rows of one vault; a connection lives as long as one call.

    Args:
        folder: of the vault.
        key: the vault's 32 bytes.
        randomness: of nonces.
    """

    def __init__(self, folder: Path, key: bytes, randomness: Randomness) -> None:
        self.path = folder / INDEX_FILE
        self._cipher = AESGCM(derive(key, "index rows"))
        self._name_key = derive(key, "index names")
        self._randomness = randomness

    def create(self) -> None:
        """Make the file with no rows, in place of whatever is there."""
        self.path.unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        with self._connect() as database:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_VERSION}")

    def is_there(self) -> bool:
        """Return whether there is an index; one that was cut off is none."""
        if not self.path.exists():
            return False
        try:
            with self._connect() as database:
                return bool(database.execute("PRAGMA user_version").fetchone()[0] == _VERSION)
        except VaultError:
            return False

    def find(self, name: str) -> Item | None:
        """Return an item's row, None if there is none.

        Raises:
            VaultError: the row or the file was altered.
        """
        with self._connect() as database:
            rows = database.execute(
                "SELECT id, size, time_s, sha256, sealed FROM items WHERE id = ?", (self._id(name),)
            ).fetchall()
        return self._item(rows[0]) if rows else None

    def items(self) -> tuple[Item, ...]:
        """Return all rows, by name.

        Raises:
            VaultError: a row or the file was altered.
        """
        with self._connect() as database:
            rows = database.execute("SELECT id, size, time_s, sha256, sealed FROM items").fetchall()
        return tuple(sorted((self._item(row) for row in rows), key=lambda item: item.name))

    def put(self, item: Item) -> None:
        """Insert or replace a row; on the disk when this returns."""
        identity, nonce = self._id(item.name), self._randomness.bytes(NONCE_BYTES)
        plain = codec.encode({"name": item.name, "kind": item.kind})
        sealed = nonce + self._cipher.encrypt(nonce, plain, _bound(identity, item))
        with self._connect() as database:
            database.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                (identity, item.size, item.time_s, item.sha256, sealed),
            )

    def delete(self, name: str) -> None:
        """Remove a row if it is there."""
        with self._connect() as database:
            database.execute("DELETE FROM items WHERE id = ?", (self._id(name),))

    def files(self) -> frozenset[str]:
        """Return the digests of all items, unverified: what must not be swept away."""
        with self._connect() as database:
            return frozenset(row[0] for row in database.execute("SELECT sha256 FROM items"))

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            # Read and write, never create: a vault that was destroyed stays so.
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, timeout=_BUSY_S, uri=True)) as database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute("PRAGMA secure_delete = ON")
                with database:
                    yield database
        except sqlite3.DatabaseError as error:
            raise VaultError(
                f"{INDEX_FILE} lists the vault's items.",
                f"an SQLite error: {error}",
                "Run `chorister vault verify --repair`: it makes the list anew from the items.",
            ) from error

    def _item(self, row: tuple[bytes, int, int, str, bytes]) -> Item:
        identity, size, time_s, sha256, sealed = row
        try:
            bound = _bound(identity, Item("", "", size, time_s, sha256))
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
            plain = codec.fields(codec.decode(opened), {"name": str, "kind": str}, "A row")
        except (InvalidTag, ValueError, TypeError, BadMessage):
            raise VaultError(
                "Every row of the vault's index is as it was sealed.",
                "one that was altered, or sealed under another key",
                "Restore the vault from a backup.",
            ) from None
        return Item(plain["name"], plain["kind"], size, time_s, sha256)

    def _id(self, name: str) -> bytes:
        return hmac.digest(self._name_key, name.encode(), "sha256")


def derive(key: bytes, purpose: str) -> bytes:
    """Return 32 bytes for one purpose from a vault's key (HKDF-SHA-256, RFC 5869)."""
    info = b"chorister vault 1\x00" + purpose.encode()
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(key)


def _bound(identity: bytes, item: Item) -> bytes:
    return codec.encode(
        {"id": identity, "size": item.size, "time_s": item.time_s, "sha256": item.sha256}
    )
