"""Levels of converted speech: silence stays silent, and nothing clips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES

PEAK = 0.98
LOOK_AHEAD_SAMPLES = 80
# Frames this far below the source's speech, or below -60 dB of full scale, count as pauses.
_PAUSE_RATIO = 10.0 ** (-35.0 / 20.0)
_SILENCE = 1e-3
# A pause comes out at most this much louder than it went in (2 dB).
_PAUSE_HEADROOM = 10.0 ** (2.0 / 20.0)
_HOLD_FRAMES = 3
_MIN_VOICED_FRAMES = 20
_TINY = 1e-9


def speech_gain(source: FloatArray, speech: FloatArray, f0_hz: FloatArray) -> float | None:
    """Factor that brings the voiced frames of converted speech to the source's level.

    Args:
        source: shape (T,).
        speech: shape (T,).
        f0_hz: shape (F,), F at least T / 160; 0 where unvoiced.

    Returns:
        the factor, above 0; None where there is too little voiced speech to tell.
    """
    levels, made = _frame_levels(source), _frame_levels(speech)
    voiced = f0_hz[: len(levels)] > 0
    if np.count_nonzero(voiced) < _MIN_VOICED_FRAMES:
        return None
    wanted = float(np.sqrt(np.square(levels[voiced]).mean()))
    found = float(np.sqrt(np.square(made[voiced]).mean()))
    return wanted / max(found, _TINY)


def silence_gate(source: FloatArray, speech: FloatArray, gain: float) -> FloatArray:
    """Converted speech at the source's level, its pauses no louder than the source's.

    Args:
        source: shape (T,).
        speech: shape (T,).
        gain: from `speech_gain`.

    Returns:
        shape (T,), float32.
    """
    levels, made = _frame_levels(source), _frame_levels(speech) * gain
    # A frame is as loud as its loudest neighbour: onsets and tails are left alone.
    near = np.pad(levels, _HOLD_FRAMES, mode="edge")
    held = np.lib.stride_tricks.sliding_window_view(near, 2 * _HOLD_FRAMES + 1).max(axis=1)
    loud = np.percentile(levels, 95.0)
    pause = held < max(_SILENCE, loud * _PAUSE_RATIO)
    ceiling = np.where(pause, _PAUSE_HEADROOM * held / np.maximum(made, _TINY), 1.0)
    factors = gain * np.minimum(ceiling, 1.0)
    centres = (np.arange(len(factors)) + 0.5) * HOP_SAMPLES
    curve = np.interp(np.arange(len(speech)), centres, factors)
    return (speech * curve).astype(np.float32)


def limit(samples: FloatArray) -> FloatArray:
    """Turns the level down around peaks that would clip, 5 ms ahead and after.

    Args:
        samples: shape (T,).

    Returns:
        shape (T,), float32, at most 0.98 in magnitude; where no peak is within 10 ms, unchanged.
    """
    size = np.abs(samples)
    if not len(samples) or size.max() <= PEAK:
        return samples
    width = 2 * LOOK_AHEAD_SAMPLES + 1
    needed = PEAK / np.maximum(size, PEAK)
    padded = np.pad(needed, 2 * LOOK_AHEAD_SAMPLES, constant_values=1.0)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, width).min(axis=1)
    # The mean of minima that all cover the peak is no higher than what the peak needs.
    curve = np.convolve(lowest, np.full(width, 1.0 / width), "valid")
    return np.clip(samples * curve, -PEAK, PEAK).astype(np.float32)


def _frame_levels(samples: FloatArray) -> NDArray[np.float64]:
    """Root mean square of each frame of 160 samples, the last one filled up with zeros."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % HOP_SAMPLES))
    power: NDArray[np.float64] = np.square(padded.reshape(-1, HOP_SAMPLES)).mean(axis=1)
    return np.sqrt(power)
