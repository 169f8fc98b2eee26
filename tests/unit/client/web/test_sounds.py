"""The folder of a sitting's sounds, and what a page that starts removes of others."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from chorister.client.web import sounds


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_page_that_starts_does_not_remove_a_folder_that_is_being_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed = []

    def start_another_page_first(handle: int, how: int) -> None:
        removed.append(sounds.remove_leftovers())
        fcntl.flock(handle, how)

    locking = SimpleNamespace(flock=start_another_page_first, LOCK_EX=fcntl.LOCK_EX)
    monkeypatch.setattr(sounds, "fcntl", locking)
    _, path = sounds.Sounds().place(".wav")
    assert removed == [0]
    assert path.parent.is_dir()


def test_what_nobody_holds_is_removed_and_what_somebody_holds_stays(place: Path) -> None:
    mine = sounds.Sounds()
    _, path = mine.place(".wav")
    killed, unfinished, young = (place / f"chorister-ui-{name}" for name in ("a", "b", "c"))
    for folder in (killed, unfinished, young):
        folder.mkdir()
    (killed / ".lock").touch()
    os.utime(unfinished, (0, 0))
    assert sounds.remove_leftovers() == 2
    assert sorted(place.iterdir()) == sorted([path.parent, young])
    mine.clear()
    assert list(place.iterdir()) == [young]
