"""The frame grid that analysis and synthesis share: hop 160, frame t centred at t * 160 + 80."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import FloatArray

HOP_SAMPLES = 160


def hann(length_samples: int) -> FloatArray:
    """Periodic Hann window.

    Args:
        length_samples: its length, at least 1.

    Returns:
        shape (length_samples,), float32, in [0, 1].
    """
    phase = 2.0 * np.pi * np.arange(length_samples) / length_samples
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def frames_of(samples: FloatArray, length_samples: int) -> NDArray[np.float32]:
    """Overlapping frames on the grid, zeros assumed beyond both ends.

    Args:
        samples: shape (T,), float32; samples past the last whole hop are left out.
        length_samples: length of a frame, even, at least 160.

    Returns:
        read-only view, shape (T // 160, length_samples), float32.
    """
    count = len(samples) // HOP_SAMPLES
    if count == 0:
        return np.empty((0, length_samples), np.float32)
    edge = (length_samples - HOP_SAMPLES) // 2
    padded = np.pad(samples[: count * HOP_SAMPLES].astype(np.float32, copy=False), edge)
    return np.lib.stride_tricks.sliding_window_view(padded, length_samples)[::HOP_SAMPLES]
