"""Separation of voices, with voices whose likeness is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadCorpus
from chorister.shared.types import FloatArray, Recording
from chorister.simulations.separation import measure_separation
from chorister.simulations.speakers import Speaker, Utterance

RATE = 16_000
ANGLES = {"a": 0.0, "b": 90.0, "c": 120.0}


def speakers(folder: Path, counts: dict[str, int]) -> list[Speaker]:
    made = []
    t = np.arange(RATE // 2) / RATE
    for name, count in counts.items():
        paths = [folder / f"{name}{number}.wav" for number in range(count)]
        for path in paths:
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * t), RATE)
        made.append(Speaker(name, tuple(Utterance(path) for path in paths)))
    return made


def embed(recording: Recording) -> FloatArray:
    """A direction in the plane that follows from the speaker's name alone."""
    angle = np.deg2rad(ANGLES[recording.name[0]])
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def test_known_voices(tmp_path: Path) -> None:
    found = measure_separation(speakers(tmp_path, {"a": 4, "b": 4, "c": 4}), embed)
    assert found.same == pytest.approx(1.0)
    cosines = [np.cos(np.deg2rad(angle)) for angle in (90, 120, 30)]
    assert found.different == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.closest == ("b", "c", pytest.approx(np.cos(np.deg2rad(30))))
    assert (found.identified, found.speakers, found.utterances) == (1.0, 3, 6)


def test_voices_that_cannot_be_told_apart(tmp_path: Path) -> None:
    def swapped(recording: Recording) -> FloatArray:
        own = int(recording.name[0] == "a")
        odd = int(recording.name[-1]) % 2
        return np.eye(2, dtype=np.float32)[own ^ odd]

    found = measure_separation(speakers(tmp_path, {"a": 4, "b": 4}), swapped)
    assert found.identified == 0.0 and found.same < found.different


def test_speakers_with_too_little_are_left_out(tmp_path: Path) -> None:
    few = speakers(tmp_path, {"a": 2, "b": 1, "c": 3})
    assert measure_separation(few, embed).speakers == 2
    with pytest.raises(BadCorpus, match="1 such"):
        measure_separation(few[:2], embed)
