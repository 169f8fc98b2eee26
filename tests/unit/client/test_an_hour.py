"""An hour of speech: memory that does not grow with it, and no click where segments meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client.segments import OVERLAP_FRAMES, SEGMENT_FRAMES
from chorister.shared.types import FloatArray

RATE = 16_000
MINUTES = 60
# An hour is 230 MB as float32.
LARGEST_GROWTH_MB = 40.0
Speech = Callable[[float, int], FloatArray]
pytestmark = pytest.mark.slow

# In a process of its own, whose peak is the conversion's.
CONVERT = """
import json, resource, sys
from pathlib import Path
from chorister.client.convert import convert_file
from chorister.client.voice import open_voice

voice, folder = open_voice(Path(sys.argv[1])), Path(sys.argv[2])
peaks_mb = []
for name in ("minutes", "hour"):
    done = convert_file(voice, folder / f"{name}.flac", folder / f"{name}-out.flac")
    peaks_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps({"peaks_mb": peaks_mb, "seconds": done.seconds}))
"""


@pytest.fixture(scope="module")
def converted(voice_path: Path, speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an hour and five minutes of the same speech, both converted."""
    folder = tmp_path_factory.mktemp("hour")
    pieces = [speech(61.0, seed) for seed in range(3)]
    for name, minutes in (("minutes", 5), ("hour", MINUTES)):
        with soundfile.SoundFile(folder / f"{name}.flac", "w", RATE, 1, "PCM_16") as file:
            left = minutes * 60 * RATE
            while left:
                piece = pieces[left // RATE % 3][:left]
                # Nobody speaks at one level for an hour.
                file.write(piece * np.float32(0.4 + 0.5 * (left // RATE % 7) / 7))
                left -= len(piece)
    command = [sys.executable, "-c", CONVERT, str(voice_path), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (folder / "told.json").write_text(done.stdout)
    return folder


def test_memory_does_not_grow_with_the_length(converted: Path) -> None:
    told = json.loads((converted / "told.json").read_text())
    assert told["seconds"] == MINUTES * 60
    before_mb, after_mb = told["peaks_mb"]
    assert after_mb - before_mb < LARGEST_GROWTH_MB


def test_the_result_is_as_long_as_the_source_and_does_not_clip(converted: Path) -> None:
    info = soundfile.info(converted / "hour-out.flac")
    assert info.frames == MINUTES * 60 * RATE
    blocks = soundfile.blocks(converted / "hour-out.flac", 60 * RATE)
    peaks = [float(np.abs(block).max()) for block in blocks]
    assert max(peaks) < 1.0
    assert min(peaks) > 0.01


def test_no_joint_is_heard(converted: Path) -> None:
    """Spectral flux in the second that holds a joint, against all other seconds of the hour."""
    joints, elsewhere = [], []
    step, third = SEGMENT_FRAMES - OVERLAP_FRAMES, OVERLAP_FRAMES // 3
    with soundfile.SoundFile(converted / "hour-out.flac") as file:
        for begin in range(0, file.frames // 160 - third, third):
            file.seek(begin * 160)
            flux = _largest_flux(file.read((third + 1) * 160, dtype="float32"))
            # The joint is in the middle third of an overlap, which begins every `step` frames.
            middle = begin >= step and (begin - third) % step == 0
            (joints if middle else elsewhere).append(flux)
    assert len(joints) > 200
    for percent in (50.0, 90.0, 99.0):
        assert np.percentile(joints, percent) < 1.1 * np.percentile(elsewhere, percent)
    assert max(joints) < 1.1 * max(elsewhere)


def _largest_flux(samples: FloatArray) -> float:
    """Largest change of the log spectrum from one 10 ms frame to the next."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160) * np.hanning(160)
    spectrum = np.log(np.abs(np.fft.rfft(frames, axis=1)) + 1e-4)
    return float(np.abs(np.diff(spectrum, axis=0)).mean(axis=1).max())
