"""A ledger on disk: appended durably, by any number of processes, and repaired after a crash."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from chorister.shared.errors import BadLedger
from chorister.shared.files import exclusive_lock, sync_folder
from chorister.shared.privacy.ledger import (
    FORMAT,
    MAX_LINE_BYTES,
    Chain,
    Checkpoint,
    Entry,
    Json,
)
from chorister.shared.signing import SigningKey


def system_clock() -> int:
    """Return the Unix time in whole seconds."""
    return int(time.time())


class LedgerFile:
    """An append-only file of entries; opening it checks the whole chain, unless told otherwise.

    A line that a crash left unfinished at the end is removed when the file is next used, and a note
    says so: an append that was not finished was not reported as done to anyone.

    Args:
        path: the file; its folder exists. It is created if absent.
        owner: who keeps it: a device's pseudonym, 'server', 'simulation'.
        federation: the federation it belongs to.
        clock: where the time of an entry comes from.
        on_entry: called with each entry in order, whoever wrote it, those of this object included.
        check: now; otherwise the first use checks it, and raises what opening would have.

    Raises:
        BadLedger: the file's chain is broken, or it belongs to another owner or federation.
    """

    def __init__(
        self,
        path: Path,
        *,
        owner: str,
        federation: str,
        clock: Callable[[], int] = system_clock,
        on_entry: Callable[[Entry], None] | None = None,
        check: bool = True,
    ) -> None:
        self.path = path
        self._genesis: dict[str, Json] = {
            "format": FORMAT, "owner": owner, "federation": federation,
        }  # fmt: skip
        self._clock = clock
        self._on_entry = on_entry
        self._chain = Chain()
        self._read_to = 0
        self._latest_s = 0
        if check:
            with self.locked():
                pass

    @property
    def head(self) -> tuple[int, str]:
        """Number of entries and digest of the last line, as this object last saw them."""
        return self._chain.length, self._chain.head

    @property
    def latest_s(self) -> int:
        """The latest time of any entry: a clock that shows less was set back since."""
        return self._latest_s

    def append(self, kind: str, **fields: Json) -> Entry:
        """Add one entry and return it once it is on the disk.

        Raises:
            BadLedger: an unknown kind, too long an entry, or the file was altered meanwhile.
            OSError: it could not be written; nothing was added.
        """
        with self.locked():
            return self.append_locked(kind, fields)

    def checkpoint(self, key: SigningKey) -> Checkpoint:
        """Sign the ledger as it is, add the checkpoint and return it, to be kept elsewhere too."""
        with self.locked():
            length, head = self.head
            checkpoint = Checkpoint.sign(key, self._chain.ledger, length - 1, head)
            self.append_locked("checkpoint", checkpoint.to_plain())
            return checkpoint

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file against other writers, with all their entries read."""
        with exclusive_lock(self.path.with_name(f".{self.path.name}.lock")):
            torn = 0
            if self.path.exists():
                torn = self._catch_up()
            elif self._chain.length:
                raise _not_append_only(f"{self.path.name} is gone")
            if not self._chain.length:
                self.append_locked("genesis", self._genesis)
                sync_folder(self.path.parent)
            if torn:
                text = "removed an entry that a crash left unfinished at the end"
                self.append_locked("note", {"repair": text, "bytes": torn})
            yield

    def append_locked(self, kind: str, fields: Mapping[str, Json]) -> Entry:
        """Add one entry inside a `locked` block; otherwise as `append`."""
        chain = replace(self._chain)
        line = chain.extend(kind, fields, self._clock())
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(handle, line + b"\n") != len(line) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(handle)
        except OSError:
            # What is half written is taken back while the lock is held: nothing was added.
            os.ftruncate(handle, self._read_to)
            raise
        finally:
            os.close(handle)
        return self._take(line)

    def _take(self, line: bytes) -> Entry:
        chain = replace(self._chain)
        entry = chain.follow(line)
        if entry.index == 0:
            self._check_genesis(entry)
        if self._on_entry is not None:
            self._on_entry(entry)
        # Only now: an entry that was refused is refused again the next time.
        self._chain, self._read_to = chain, self._read_to + len(line) + 1
        self._latest_s = max(self._latest_s, entry.time_s)
        return entry

    def _catch_up(self) -> int:
        """Take all whole lines, cut off what a crash left behind them, return its bytes."""
        size = self.path.stat().st_size
        if size < self._read_to:
            raise _not_append_only(f"{size} of {self._read_to} bytes are left in {self.path.name}")
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            for raw in _lines(file):
                if not raw.endswith(b"\n"):
                    break
                self._take(raw[:-1])
        if size > self._read_to:
            os.truncate(self.path, self._read_to)
        return size - self._read_to

    def _check_genesis(self, entry: Entry) -> None:
        if dict(entry.fields) != self._genesis:
            wanted, found = (
                ", ".join(f"{name} {fields.get(name)!r}" for name in self._genesis)
                for fields in (self._genesis, entry.fields)
            )
            raise BadLedger(
                f"The ledger {self.path.name} is one of {wanted}.", found,
                "Give each device and federation a ledger file of its own.",
            )  # fmt: skip


def read_lines(path: Path) -> Iterator[bytes]:
    """Give a ledger file's lines for `verify`, none much longer than an entry may be."""
    with path.open("rb") as file:
        yield from _lines(file)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE_BYTES + 2), b"")


def _not_append_only(found: str) -> BadLedger:
    return BadLedger(
        "A ledger is only ever appended to.", found,
        "Restore it from a backup and compare it with its last checkpoint.",
    )  # fmt: skip
