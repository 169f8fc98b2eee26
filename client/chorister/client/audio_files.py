"""Which files a command means by the recordings that were named to it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from chorister.shared.errors import BadCorpus

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


def audio_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the files that were named, and all audio files of the folders, in order.

    Args:
        paths: files or folders.

    Raises:
        BadCorpus: one of them is not there.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadCorpus("The recordings must exist.", f"no {path}", "Check the path.")
        if path.is_dir():
            files += sorted(f for f in path.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES)
        else:
            files.append(path)
    return tuple(files)
