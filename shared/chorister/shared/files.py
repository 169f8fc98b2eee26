"""Files that survive a crash: whole or absent, and one writer at a time.

A rename is atomic and an fsync is what makes it durable; a lock is the operating system's own, so
it ends with the process that holds it, however that ends. Needs a POSIX system.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file so that a crash at any byte leaves the old one or the new one.

    Args:
        path: where; its folder exists.
        data: the whole new content.
        mode: permission bits of the new file.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (created, renamed and removed files)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a with-block; other processes and threads wait.

    Args:
        path: the lock file; it is created and stays.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hold_lock(path: Path, wait_s: float) -> bool:
    """Take a lock file until this process ends; return whether it was to be had in time.

    Args:
        path: the lock file; it is created and stays.
        wait_s: how long to wait for another process to end.
    """
    # Not inherited: a process that this one starts must not keep the lock alive.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                os.close(handle)
                return False
            time.sleep(0.1)
        else:
            return True  # the handle stays open: that is what holds the lock


def is_locked(path: Path) -> bool:
    """Return whether another process holds a lock file now; the operating system knows.

    Args:
        path: the lock file; it need not exist, and is not made.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
