"""WORLD as a yardstick: a copy of a recording, and a voice changer without any learning.

Source: Morise, Yokomori and Ozawa, WORLD: a vocoder-based high-quality speech synthesis system for
real-time applications, IEICE E99-D (2016); the optional package pyworld.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import SAMPLE_RATE_HZ, FeatureSequence, FloatArray, Recording
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.model import move_pitch
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.vocoder import band_to_bin

_PERIOD_MS = 5.0
_LARGEST_CHANGE = 3.0


def can_use_world() -> bool:
    """Whether pyworld is installed."""
    return find_spec("pyworld") is not None


@dataclass(frozen=True, slots=True)
class WorldAnalysis:
    """A recording as WORLD sees it, every 5 ms, with our own F0.

    Attributes:
        f0_hz: shape (N,), 0 where unvoiced.
        envelope: shape (N, 513), power.
        aperiodicity: shape (N, 513), 0 to 1.
    """

    f0_hz: NDArray[np.float64]
    envelope: NDArray[np.float64]
    aperiodicity: NDArray[np.float64]


def analyse(recording: Recording, f0_hz: FloatArray) -> WorldAnalysis:
    """Analyse a recording.

    Args:
        recording: T samples.
        f0_hz: shape (F,), every 10 ms, F = T // 160, 0 where unvoiced.
    """
    pyworld = _pyworld()
    samples = recording.samples.astype(np.float64)
    times_s = np.arange(2 * len(f0_hz), dtype=np.float64) * _PERIOD_MS / 1000.0
    dense = _at_times(f0_hz, times_s)
    envelope = pyworld.cheaptrick(samples, dense, times_s, SAMPLE_RATE_HZ)
    aperiodicity = pyworld.d4c(samples, dense, times_s, SAMPLE_RATE_HZ)
    return WorldAnalysis(dense, envelope, aperiodicity)


def copy_by_world(analysis: WorldAnalysis) -> FloatArray:
    """Synthesise what was analysed, shape (F * 160,), float32."""
    return _synthesise(analysis.f0_hz, analysis.envelope, analysis.aperiodicity)


def convert_by_world(
    analysis: WorldAnalysis,
    features: FeatureSequence,
    source: SpeakerProfile,
    target: SpeakerProfile,
) -> FloatArray:
    """Move F0 and, in every mel band, mean and spread of the envelope to the target's.

    Args:
        analysis: of the source's recording.
        features: of the same recording, F frames.
        source: the source speaker's enrolment.
        target: the target speaker's enrolment.

    Returns:
        shape (F * 160,), float32.
    """
    f0_hz = move_pitch(features.f0_hz, source, target)
    height = (features.log_mel - source.mel_mean) / source.mel_std
    change = height * target.mel_std + target.mel_mean - features.log_mel
    at_bins = np.clip(change, -_LARGEST_CHANGE, _LARGEST_CHANGE) @ band_to_bin()  # (F, 257)
    times_s = np.arange(len(analysis.f0_hz), dtype=np.float64) * _PERIOD_MS / 1000.0
    nearest = np.clip((times_s * SAMPLE_RATE_HZ / HOP_SAMPLES).astype(int), 0, len(at_bins) - 1)
    bins = np.linspace(0.0, 1.0, analysis.envelope.shape[1])
    rows = [np.interp(bins, np.linspace(0.0, 1.0, at_bins.shape[1]), at_bins[n]) for n in nearest]
    envelope = analysis.envelope * np.exp(2.0 * np.stack(rows))
    return _synthesise(_at_times(f0_hz, times_s), envelope, analysis.aperiodicity)


def _at_times(f0_hz: FloatArray, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """F0 of the frame that holds each moment, linear between two voiced frames."""
    places = times_s * SAMPLE_RATE_HZ / HOP_SAMPLES - 0.5
    below = np.clip(np.floor(places).astype(int), 0, len(f0_hz) - 1)
    above = np.minimum(below + 1, len(f0_hz) - 1)
    share = np.clip(places - below, 0.0, 1.0)
    low, high = f0_hz[below].astype(np.float64), f0_hz[above].astype(np.float64)
    between = (1.0 - share) * low + share * high
    nearest = np.where(share < 0.5, low, high)
    return np.ascontiguousarray(np.where((low > 0) & (high > 0), between, nearest))


def _pyworld() -> Any:
    with warnings.catch_warnings():
        # It asks for a deprecated part of setuptools.
        warnings.simplefilter("ignore")
        return import_module("pyworld")


def _synthesise(
    f0_hz: NDArray[np.float64], envelope: NDArray[np.float64], aperiodicity: NDArray[np.float64]
) -> FloatArray:
    made: NDArray[np.float64] = _pyworld().synthesize(
        f0_hz,
        np.ascontiguousarray(envelope),
        np.ascontiguousarray(aperiodicity),
        SAMPLE_RATE_HZ,
        _PERIOD_MS,
    )
    length = len(f0_hz) // 2 * HOP_SAMPLES
    samples = np.zeros(length, np.float32)
    samples[: min(length, len(made))] = made[:length]
    return samples
