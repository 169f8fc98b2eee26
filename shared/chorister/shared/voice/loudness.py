"""Loudness as ears hear it, to play samples of a report at one level.

Source: ITU-R BS.1770-4 (K weighting, 400 ms blocks, gates at -70 LUFS and 10 LU below the mean);
the filters' analogue parameters, for any rate, from De Man, Evaluation of Implementations of the
EBU R128 Loudness Measurement, AES 145 (2018).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray

REPORT_LUFS = -23.0
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = 10.0
_BLOCK = round(0.4 * SAMPLE_RATE_HZ)
_HOP = _BLOCK // 4
_PEAK = 0.99


class LoudnessMeter:
    """Integrated, gated loudness of mono speech of any length, block by block."""

    def __init__(self) -> None:
        self._state = np.zeros((len(k_weighting()), 2))
        self._rest = np.zeros(0)
        self._hops: list[float] = []

    def add(self, samples: FloatArray) -> None:
        """Listen to more.

        Args:
            samples: shape (T,) at 16 kHz.
        """
        if not len(samples):
            return
        weighted, self._state = sosfilt(k_weighting(), samples.astype(np.float64), zi=self._state)
        squares = np.concatenate([self._rest, np.square(weighted)])
        whole = len(squares) // _HOP * _HOP
        self._hops += squares[:whole].reshape(-1, _HOP).mean(axis=1).tolist()
        self._rest = squares[whole:]

    def lufs(self) -> float:
        """LUFS so far; minus infinity where every block is below -70 LUFS, or nothing came."""
        hops = np.array(self._hops)
        parts = _BLOCK // _HOP
        if len(hops) >= parts:
            powers = np.lib.stride_tricks.sliding_window_view(hops, parts).mean(axis=1)
        else:
            # Shorter than 0.4 s: taken as one block.
            total = hops.sum() * _HOP + self._rest.sum()
            powers = np.array([total / max(len(hops) * _HOP + len(self._rest), 1)])
        gate = _power(_ABSOLUTE_GATE_LUFS)
        if not (powers > gate).any():
            return -np.inf
        gate = max(gate, powers[powers > gate].mean() * 10.0 ** (-_RELATIVE_GATE_LU / 10.0))
        return float(-0.691 + 10.0 * np.log10(powers[powers > gate].mean()))


def loudness_lufs(samples: FloatArray) -> float:
    """Integrated, gated loudness of mono speech.

    Args:
        samples: shape (T,) at 16 kHz, T above 0; shorter than 0.4 s is taken as one block.

    Returns:
        LUFS; minus infinity where every block is below -70 LUFS.
    """
    meter = LoudnessMeter()
    meter.add(samples)
    return meter.lufs()


def k_weighted(samples: FloatArray) -> FloatArray:
    """Samples as loudness weighs them: treble raised, what is below 40 Hz taken away.

    Args:
        samples: shape (T,) at 16 kHz.

    Returns:
        shape (T,), float32.
    """
    return np.asarray(sosfilt(k_weighting(), samples.astype(np.float64)), np.float32)


def match_level(samples: FloatArray, target_db: float = REPORT_LUFS) -> FloatArray:
    """Scale a sample to a loudness, so that none of two sounds better by being louder.

    Args:
        samples: shape (T,) at 16 kHz.
        target_db: loudness to reach in LUFS, -50 to -10. It is missed on the quiet side where a
            peak would pass full scale: nothing is limited or compressed.

    Returns:
        shape (T,), float32; unchanged where the sample is silent.
    """
    measured = loudness_lufs(samples)
    if not np.isfinite(measured):
        return samples
    gain = 10.0 ** ((target_db - measured) / 20.0)
    peak = float(np.abs(samples).max())
    matched: FloatArray = (samples * min(gain, _PEAK / peak)).astype(np.float32)
    return matched


def _power(lufs: float) -> float:
    return float(10.0 ** ((lufs + 0.691) / 10.0))


@cache
def k_weighting() -> NDArray[np.float64]:
    """The filter by which loudness weighs sound, in second-order sections: shape (2, 6)."""
    return np.stack([_high_shelf(1681.974, 3.99984, 0.70717), _high_pass(38.1355, 0.50033)])


def _high_shelf(frequency_hz: float, gain_db: float, q: float) -> NDArray[np.float64]:
    k = np.tan(np.pi * frequency_hz / SAMPLE_RATE_HZ)
    high = 10.0 ** (gain_db / 20.0)
    band = high**0.499667
    a0 = 1.0 + k / q + k * k
    numerator = [high + band * k / q + k * k, 2.0 * (k * k - high), high - band * k / q + k * k]
    return np.array([*(b / a0 for b in numerator), 1.0, *_poles(k, q, a0)])


def _high_pass(frequency_hz: float, q: float) -> NDArray[np.float64]:
    k = np.tan(np.pi * frequency_hz / SAMPLE_RATE_HZ)
    a0 = 1.0 + k / q + k * k
    return np.array([1.0, -2.0, 1.0, 1.0, *_poles(k, q, a0)])


def _poles(k: float, q: float, a0: float) -> tuple[float, float]:
    return 2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0
