"""Level of a recording, frame by frame on the grid of `frames`."""

from __future__ import annotations

import numpy as np

from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import frames_of

ENERGY_WINDOW_SAMPLES = 400
LOWEST_DB = -100.0
# Frames this far below the loudest ones hold pauses, not speech.
SPEECH_RANGE_DB = 35.0
_LOUD_SHARE = 95.0


def frame_energy_db(samples: FloatArray) -> FloatArray:
    """Mean power of 25 ms around each frame's centre.

    Args:
        samples: shape (T,), float32, 16 kHz; zeros are assumed beyond both ends.

    Returns:
        shape (T // 160,), float32, dB relative to a mean square of 1 (a full-scale square wave is
        0 dB, a full-scale sine -3 dB), at least -100.
    """
    framed = frames_of(samples, ENERGY_WINDOW_SAMPLES)
    power = np.einsum("ft,ft->f", framed, framed, dtype=np.float64) / ENERGY_WINDOW_SAMPLES
    level_db = 10.0 * np.log10(np.maximum(power, 10.0 ** (LOWEST_DB / 10.0)))
    return np.asarray(level_db, np.float32)


def speech_level_db(samples: FloatArray) -> float:
    """Level of the speech in a recording, its pauses left out.

    Args:
        samples: shape (T,), float32, 16 kHz.

    Returns:
        dB of the mean power over the frames within 35 dB of the 95th percentile; -100 for silence
        and for less than one frame.
    """
    levels = frame_energy_db(samples).astype(np.float64)
    if len(levels) == 0:
        return LOWEST_DB
    spoken = levels[levels >= np.percentile(levels, _LOUD_SHARE) - SPEECH_RANGE_DB]
    return float(10.0 * np.log10(np.mean(10.0 ** (spoken / 10.0))))
