"""Levels of live speech: it follows the source's, silence stays silent, and nothing clips.

What `level.LevelFollower` does over a file, from the past alone. It adds no delay: the speech lags
behind its source, so the source's next frames are already known.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from chorister.client.level import PEAK
from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.loudness import k_weighting

# The gain follows the last seconds of speech: the weight of a frame halves in this many.
_HALF_LIFE_FRAMES = 150
_KEPT = 0.5 ** (1.0 / _HALF_LIFE_FRAMES)
# At the start the gain of 1 counts as much as this many frames of speech at -40 dB.
_FIRST_FRAMES = 5.0
_FIRST_POWER = 1e-4
# As over a file: pauses lie 35 dB below the loudest frames, which are 6 dB above the mean, or
# below -60 dB of full scale, and come out at most 2 dB louder.
_PAUSE_RATIO = 10.0 ** (-29.0 / 20.0)
_SILENCE = 1e-3
_PAUSE_HEADROOM = 10.0 ** (2.0 / 20.0)
_MOST_GAIN = 10.0 ** (20.0 / 20.0)
# Frames before and after that a frame is as loud as.
HOLD_FRAMES = 3
_KNEE = 0.8
_TINY = 1e-9

_State = NDArray[np.float64]


class StreamLevel:
    """Sets the level of a stream, hop by hop."""

    def __init__(self) -> None:
        weighting = k_weighting()
        self._source_filter = np.zeros((len(weighting), 2))
        self._speech_filter = np.zeros((len(weighting), 2))
        self._wanted: float = _FIRST_FRAMES * _FIRST_POWER
        self._made: float = _FIRST_FRAMES * _FIRST_POWER
        self._factor = 1.0

    def follow(self, source: FloatArray, speech: FloatArray) -> FloatArray:
        """Sets the level of one hop.

        Args:
            source: shape (7 * 160,): what the hop was made of, and three hops before and after it.
            speech: shape (160,).

        Returns:
            shape (160,), float32, below 1 in magnitude.
        """
        hops = np.square(source.astype(np.float64)).reshape(-1, HOP_SAMPLES)
        levels = np.sqrt(hops.mean(axis=1))
        held = float(levels.max())
        here = source[HOLD_FRAMES * HOP_SAMPLES : (HOLD_FRAMES + 1) * HOP_SAMPLES]
        wanted, self._source_filter = _weighted_power(here, self._source_filter)
        made, self._speech_filter = _weighted_power(speech, self._speech_filter)
        pause = held < max(_SILENCE, _PAUSE_RATIO * math.sqrt(self._mean_power()))
        if not pause:
            self._wanted = _KEPT * self._wanted + wanted
            self._made = _KEPT * self._made + made
        gain = min(math.sqrt(self._wanted / self._made), _MOST_GAIN)
        if pause:
            level = float(np.sqrt(np.square(speech.astype(np.float64)).mean()))
            gain = min(gain, _PAUSE_HEADROOM * held / max(level, _TINY))
        # From the last hop's factor to this one's, so that no step is heard.
        rising = (np.arange(HOP_SAMPLES) + 1.0) / HOP_SAMPLES
        curve = self._factor + (gain - self._factor) * rising
        self._factor = gain
        return soft_limit((speech * curve).astype(np.float32))

    def _mean_power(self) -> float:
        """Mean power of the source's speech so far, with what it began with."""
        return float(self._wanted * (1.0 - _KEPT))


def soft_limit(samples: FloatArray) -> FloatArray:
    """Bends what lies above 0.8 so that it stays below 0.98: no delay, no click.

    Args:
        samples: shape (T,).

    Returns:
        shape (T,), float32; what lies below 0.8 in magnitude is unchanged.
    """
    size = np.abs(samples)
    room = PEAK - _KNEE
    bent = _KNEE + room * np.tanh((size - _KNEE) / room)
    return np.where(size <= _KNEE, samples, np.sign(samples) * bent).astype(np.float32)


def _weighted_power(samples: FloatArray, state: _State) -> tuple[float, _State]:
    """Mean K-weighted power of a hop, and the filter's state after it."""
    weighted, state = sosfilt(k_weighting(), samples.astype(np.float64), zi=state)
    return float(np.square(weighted).mean()), state
