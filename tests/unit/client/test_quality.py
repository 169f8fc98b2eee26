"""Figures of a recording: each fault shows in its own figure."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import soxr

from chorister.client.quality import bandwidth_hz, clipped_share, measure_quality
from chorister.client.voice_activity import speech_frames
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.loudness import loudness_lufs

Speech = Callable[[float, int], FloatArray]
RATE = 16_000


def noisy(samples: FloatArray, level: float) -> FloatArray:
    noise = np.random.default_rng(1).normal(0, level, len(samples))
    return (samples + noise).astype(np.float32)


def test_noise_lowers_the_signal_to_noise(speech: Speech) -> None:
    clean = noisy(speech(6.0, 1), 1e-4)
    quiet, loud = (
        measure_quality(Recording(s, "s"), silero=False).snr_db for s in (clean, noisy(clean, 0.02))
    )
    assert quiet > 30.0
    assert loud < 15.0


def test_noise_alone_and_silence_have_no_speech() -> None:
    for samples in (noisy(np.zeros(3 * RATE, np.float32), 0.1), np.zeros(3 * RATE, np.float32)):
        quality = measure_quality(Recording(samples, "n"), silero=False)
        assert (quality.speech_share, quality.snr_db) == (0.0, 0.0)
    assert len(speech_frames(np.zeros(10, np.float32), silero=False)) == 0


def test_cut_off_peaks_are_clipping_and_loud_speech_is_not(speech: Speech) -> None:
    samples = speech(3.0, 1)
    loud = (samples / np.abs(samples).max()).astype(np.float32)
    assert clipped_share(loud) < 0.001
    assert clipped_share(np.clip(3.0 * loud, -1.0, 1.0)) > 0.02
    # Clipped first and turned down later is clipped all the same.
    assert clipped_share((0.3 * np.clip(3.0 * loud, -1.0, 1.0)).astype(np.float32)) > 0.02
    assert clipped_share(np.zeros(0, np.float32)) == 0.0


def test_telephone_speech_ends_below_four_kilohertz(speech: Speech) -> None:
    wide = noisy(speech(3.0, 1), 1e-3)
    telephone = soxr.resample(soxr.resample(wide, RATE, 8000), 8000, RATE)
    assert bandwidth_hz(wide) > 7500.0
    assert bandwidth_hz(telephone) < 4200.0


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad is not installed")
def test_silero_knows_noise_from_speech_and_leaves_torch_alone() -> None:
    import torch

    threads = torch.get_num_threads()
    noise = noisy(np.zeros(3 * RATE, np.float32), 0.1)
    found = speech_frames(noise, silero=True)
    assert found.shape == (300,)
    assert found.mean() < 0.3
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(find_spec("pyloudnorm") is None, reason="pyloudnorm is not installed")
@pytest.mark.parametrize("seed", [1, 2])
def test_our_loudness_is_pyloudnorms(speech: Speech, seed: int) -> None:
    import pyloudnorm

    samples = speech(8.0, seed)
    # "DeMan" is the filter design that ours follows; pyloudnorm's default is 0.1 LU off at 16 kHz.
    meter = pyloudnorm.Meter(RATE, filter_class="DeMan")
    assert loudness_lufs(samples) == pytest.approx(
        meter.integrated_loudness(samples.astype(np.float64)), abs=0.05
    )
