"""Sound that came from the browser, and sound that is made for it.

Takes of an enrolment stay in memory: nothing of them is on a disk before the vault has them. What
is to be converted, and what it became, lie in a folder that only this user can read, and that is
removed when the vault is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chorister.shared.errors import BadAudio, UsageError
from chorister.shared.files import is_locked
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording, stream_recording

LONGEST_NAME = 80
MOST_KEPT = 24
_PEAKS = 240
_PREFIX = "chorister-ui-"
_LOCK = ".lock"
_BEING_MADE_S = 60.0
_BLOCK_SAMPLES = 1600


@dataclass(frozen=True, slots=True)
class Sound:
    """A file to listen to.

    Attributes:
        id: as the page asks for it.
        path: where it lies.
        name: for a person; it is never part of a path.
        seconds: its length.
        peaks: shape (240,) at most, the outline of its wave, 0 to 1.
        of: id of the source that it was made from; '' for a source.
        made_with: voice and controls, in words; '' for a source.
    """

    id: str
    path: Path
    name: str
    seconds: float
    peaks: tuple[float, ...]
    of: str = ""
    made_with: str = ""


class Sounds:
    """The sources and conversions of one sitting."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = -1  # held while the folder is there, by the operating system
        self._sounds: dict[str, Sound] = {}
        self._next = 1

    def all(self) -> tuple[Sound, ...]:
        """Return all sounds, oldest first."""
        return tuple(self._sounds.values())

    def find(self, identity: str) -> Sound:
        """Return a sound.

        Raises:
            UsageError: there is none of this name.
        """
        found = self._sounds.get(identity)
        if found is None:
            raise UsageError(
                "A sound of this sitting is named.", "none of that name", "Reload the page."
            )
        return found

    def place(self, suffix: str) -> tuple[str, Path]:
        """Return a new id, and where its file is to be written.

        Raises:
            UsageError: too many sounds are kept.
        """
        if len(self._sounds) >= MOST_KEPT:
            raise UsageError(
                f"At most {MOST_KEPT} recordings and conversions are kept.", "as many",
                "Remove some of them first.",
            )  # fmt: skip
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
            # Locked before it has its name: a page that starts now removes what nobody holds.
            making = self._folder / f"{_LOCK}.new"
            self._lock = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            making.rename(self._folder / _LOCK)
        identity = f"{self._next}"
        self._next += 1
        return identity, self._folder / f"{identity}{suffix}"

    def add_source(self, data: bytes, name: str) -> Sound:
        """Keep a recording that is to be converted.

        Args:
            data: of an audio file of any kind.
            name: for a person.

        Raises:
            BadAudio: it cannot be used.
            UsageError: too many sounds are kept.
        """
        label = clean_name(name)
        identity, path = self.place(".audio")
        try:
            path.write_bytes(data)
            with _named(path, label):
                return self.keep(identity, path, label)
        except BaseException:
            # Also where the disk is full: nothing lies there that the page does not list.
            path.unlink(missing_ok=True)
            raise

    def keep(
        self, identity: str, path: Path, name: str, of: str = "", made_with: str = ""
    ) -> Sound:
        """List a file that was written where `place` said."""
        seconds, peaks = outline(path)
        self._sounds[identity] = Sound(identity, path, name, seconds, peaks, of, made_with)
        return self._sounds[identity]

    def remove(self, identity: str) -> None:
        """Delete a sound, and what was made of it."""
        self.find(identity)
        gone = [s for s in self._sounds.values() if identity in (s.id, s.of)]
        for sound in gone:
            sound.path.unlink(missing_ok=True)
            del self._sounds[sound.id]

    def clear(self) -> None:
        """Delete everything."""
        self._sounds.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            os.close(self._lock)


def remove_leftovers() -> int:
    """Delete what processes that were killed left behind, and return how many folders that was.

    Those of a page that is still there are locked, and stay.
    """
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            # One that is being made has no lock yet.
            old = time.time() - found.st_mtime > _BEING_MADE_S or (folder / _LOCK).exists()
            if ours and old and not is_locked(folder / _LOCK):
                shutil.rmtree(folder)
                removed += 1
    return removed


def read_take(data: bytes, name: str) -> Recording:
    """Return a recording that was uploaded, without writing it to a disk where the system allows.

    Args:
        data: of an audio file.
        name: what to call it.

    Raises:
        BadAudio: as `load_recording`.
    """
    with _file_of(data) as path, _named(path, name):
        return Recording(load_recording(path).samples, name)


def outline(path: Path) -> tuple[float, tuple[float, ...]]:
    """Return length in seconds and outline of a file.

    Raises:
        BadAudio: it cannot be read.
    """
    loudest: list[float] = []
    samples = 0
    for block in stream_recording(path):
        samples += len(block)
        whole = np.pad(np.abs(block), (0, -len(block) % _BLOCK_SAMPLES))
        loudest += whole.reshape(-1, _BLOCK_SAMPLES).max(axis=1).tolist()
    return samples / 16_000, peaks_of(np.array(loudest))


def peaks_of(levels: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    """Return at most 240 peaks, 0 to 1, of absolute values of shape (N,)."""
    parts = np.array_split(levels, min(_PEAKS, max(len(levels), 1)))
    return tuple(round(min(float(p.max()) if len(p) else 0.0, 1.0), 3) for p in parts)


def clean_name(name: str) -> str:
    """Return a name for a person: printable, without folders, at most 80 characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in last if c.isprintable()).strip()[:LONGEST_NAME] or "recording"


@contextmanager
def _file_of(data: bytes) -> Iterator[Path]:
    """A path that the audio library can open."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("take")
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(data)
            yield Path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return
    with tempfile.NamedTemporaryFile(prefix="chorister-take-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Say the name that a person knows in place of a path that nobody does."""
    try:
        yield
    except BadAudio as error:
        raise BadAudio(error.rule, error.found.replace(str(path), name), error.advice) from None
