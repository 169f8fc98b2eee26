"""Levels of converted speech: it follows the source's, silence stays silent, and nothing clips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d

from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.loudness import k_weighted

PEAK = 0.98
LOOK_AHEAD_SAMPLES = 80
# The level is compared over this much before and after each frame (1.5 s), by a Hann window.
_REACH_FRAMES = 150
# What lies further back counts as much as this many frames do.
_MEMORY_FRAMES = 2.0
_FEWEST_FRAMES = 20
# Frames this far below the source's speech count as pauses: 35 dB below its loudest frames, which
# are about 6 dB above its loudness.
_PAUSE_RATIO = 10.0 ** (-35.0 / 20.0)
_LOUDEST_FRAMES = 10.0 ** (6.0 / 20.0)
_LOUD_PERCENTILE = 95.0
# What is below -60 dB of full scale is a pause too, unless the speech itself is as quiet as that.
_SILENCE = 1e-3
_QUIETEST_SPEECH = 10.0 ** (-20.0 / 20.0)
# A pause comes out at most this much louder than it went in (2 dB).
_PAUSE_HEADROOM = 10.0 ** (2.0 / 20.0)
_HOLD_FRAMES = 3
_TINY = 1e-9

Levels = NDArray[np.float64]


class LevelFollower:
    """Brings converted speech to its source's level, segment by segment.

    The gain of each frame compares the loudness-weighted (ITU-R BS.1770) levels of both around it,
    pauses left out, so that a level that moves within a file is followed and no error adds up.

    Args:
        source_lufs: loudness of the whole source, which says what is a pause; None judges each
            segment by its own loudest frames.
    """

    def __init__(self, source_lufs: float | None = None) -> None:
        self._loud = None
        if source_lufs is not None and np.isfinite(source_lufs):
            self._loud = _LOUDEST_FRAMES * 10.0 ** (source_lufs / 20.0)
        self._log_gain: float | None = None

    def follow(
        self, source: FloatArray, speech: FloatArray, *, rate: float = 1.0, offset: float = 0.0
    ) -> FloatArray:
        """Sets the level of one segment.

        Args:
            source: shape (T,), 16 kHz.
            speech: shape (T',), 16 kHz, what was made of it.
            rate: how many times as fast as the source it is.
            offset: where it begins in the source, in frames.

        Returns:
            shape (T',), float32: the speech at the source's level, its pauses at most 2 dB louder
            than the source's.
        """
        made = frame_levels(speech)
        count = len(made)
        levels = _at_frames(frame_levels(source), count, rate, offset)
        pause, held = self._pauses(levels)
        wanted = _at_frames(frame_levels(k_weighted(source)), count, rate, offset)
        gains = self._gains(wanted, frame_levels(k_weighted(speech)), ~pause & (made > _TINY))
        ceiling = _PAUSE_HEADROOM * held / np.maximum(made * gains, _TINY)
        gains = gains * np.where(pause, np.minimum(ceiling, 1.0), 1.0)
        centres = (np.arange(count) + 0.5) * HOP_SAMPLES
        curve = np.interp(np.arange(len(speech)), centres, gains)
        return (speech * curve).astype(np.float32)

    def _pauses(self, levels: Levels) -> tuple[NDArray[np.bool_], Levels]:
        """Which frames are pauses, and the level of each, held over its neighbours.

        A frame is as loud as its loudest neighbour: onsets and tails are left alone.
        """
        near = np.pad(levels, _HOLD_FRAMES, mode="edge")
        held = np.lib.stride_tricks.sliding_window_view(near, 2 * _HOLD_FRAMES + 1).max(axis=1)
        own = float(np.percentile(levels, _LOUD_PERCENTILE))
        loud = own if self._loud is None else self._loud
        silence = min(_SILENCE, loud * _QUIETEST_SPEECH) if self._loud is not None else _SILENCE
        return held < max(silence, loud * _PAUSE_RATIO), held

    def _gains(self, wanted: Levels, made: Levels, speech: NDArray[np.bool_]) -> Levels:
        """The factor for each frame, shape (F',)."""
        if np.count_nonzero(speech) < _FEWEST_FRAMES:
            return np.full(len(made), np.exp(self._log_gain or 0.0))
        own = float(np.log(_rms(wanted[speech]) / _rms(made[speech])))
        before = own if self._log_gain is None else self._log_gain
        self._log_gain = own
        window = np.hanning(2 * _REACH_FRAMES + 3)[1:-1]
        weight = _around(speech.astype(np.float64), window)
        near = _around(np.where(speech, wanted**2, 0.0), window)
        found = _around(np.where(speech, made**2, 0.0), window)
        local = 0.5 * np.log(np.maximum(near, _TINY**2) / np.maximum(found, _TINY**2))
        share = weight / (weight + _MEMORY_FRAMES)
        return np.asarray(np.exp(share * local + (1.0 - share) * before), np.float64)


def frame_levels(samples: FloatArray) -> Levels:
    """Root mean square of each frame of 160 samples, the last one filled up with zeros.

    Args:
        samples: shape (T,).

    Returns:
        shape (F,), F = T / 160, rounded up.
    """
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % HOP_SAMPLES))
    power: Levels = np.square(padded.reshape(-1, HOP_SAMPLES)).mean(axis=1)
    return np.sqrt(power)


def limit(samples: FloatArray, peak: float = PEAK) -> FloatArray:
    """Turns the level down around peaks that would clip, 5 ms ahead and after.

    Args:
        samples: shape (T,).
        peak: largest magnitude that is let through, above 0.

    Returns:
        shape (T,), float32, at most `peak` in magnitude; where none is within 10 ms, unchanged.
    """
    size = np.abs(samples)
    if not len(samples) or size.max() <= peak:
        return samples
    width = 2 * LOOK_AHEAD_SAMPLES + 1
    needed = peak / np.maximum(size, peak)
    padded = np.pad(needed, LOOK_AHEAD_SAMPLES, constant_values=1.0)
    lowest = minimum_filter1d(padded, width, mode="constant", cval=1.0)
    # The mean of minima that all cover the peak is no higher than what the peak needs.
    curve = np.convolve(lowest, np.full(width, 1.0 / width), "valid")
    return np.clip(samples * curve, -peak, peak).astype(np.float32)


def _at_frames(levels: Levels, count: int, rate: float, offset: float) -> Levels:
    """A source's levels at the frames of the result."""
    places = offset + (np.arange(count) + 0.5) * rate - 0.5
    return np.asarray(np.interp(places, np.arange(len(levels)), levels))


def _around(values: Levels, window: Levels) -> Levels:
    """Windowed sum around each value, zeros beyond both ends."""
    padded = np.pad(values, len(window) // 2)
    return np.convolve(padded, window, "valid")


def _rms(levels: Levels) -> float:
    return float(np.sqrt(np.square(levels).mean())) + _TINY
