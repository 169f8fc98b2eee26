"""Where in a recording somebody speaks: silero-vad where it is installed, levels otherwise."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES

# Frames this far below the loud ones, and this little above the floor, are pauses.
_BELOW_LOUD_DB = 30.0
_ABOVE_FLOOR_DB = 6.0
_HOLD_FRAMES = 10
_TINY = 1e-10


def speech_frames(samples: FloatArray, *, silero: bool | None = None) -> NDArray[np.bool_]:
    """Return which frames of 10 ms hold speech.

    Args:
        samples: shape (T,), 16 kHz.
        silero: whether to ask silero-vad (Silero Team 2021), which knows speech from music and
            noise; None does where it is installed. Levels alone know loud from quiet.

    Returns:
        shape (T // 160,), bool.
    """
    if find_spec("silero_vad") is not None if silero is None else silero:
        return _by_silero(samples)
    return _by_level(samples)


def frame_levels_db(samples: FloatArray) -> NDArray[np.float64]:
    """Return the level of each frame of 10 ms in dB of full scale, shape (T // 160,)."""
    whole = len(samples) // HOP_SAMPLES * HOP_SAMPLES
    frames = samples[:whole].astype(np.float64).reshape(-1, HOP_SAMPLES)
    levels: NDArray[np.float64] = 10.0 * np.log10(np.square(frames).mean(axis=1) + _TINY)
    return levels


def _by_level(samples: FloatArray) -> NDArray[np.bool_]:
    levels = frame_levels_db(samples)
    if not len(levels):
        return np.zeros(0, bool)
    loud, floor = np.percentile(levels, [95.0, 5.0])
    active = levels > max(loud - _BELOW_LOUD_DB, floor + _ABOVE_FLOOR_DB)
    # A short gap between two sounds is part of the word around it.
    width = 2 * _HOLD_FRAMES + 1
    return np.convolve(active, np.ones(width), "same") >= width // 4


def _by_silero(samples: FloatArray) -> NDArray[np.bool_]:
    import torch

    model, find_parts = _silero()
    spoken = np.zeros(len(samples) // HOP_SAMPLES, bool)
    for part in find_parts(torch.from_numpy(samples), model, sampling_rate=SAMPLE_RATE_HZ):
        spoken[part["start"] // HOP_SAMPLES : -(-part["end"] // HOP_SAMPLES)] = True
    return spoken


@cache
def _silero() -> tuple[Any, Any]:
    """The model that the package ships, and the function that runs it."""
    import torch

    threads = torch.get_num_threads()
    from silero_vad import get_speech_timestamps, load_silero_vad

    model = load_silero_vad(onnx=True)
    # Importing the package sets torch to one thread for the whole process.
    torch.set_num_threads(threads)
    return model, get_speech_timestamps
