"""F0 on signals whose pitch is known, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.voice.f0 import HIGHEST_HZ, LOWEST_HZ, estimate_f0, normalised_difference


def voice(f0_hz: np.ndarray, harmonics: int = 10) -> np.ndarray:
    """Harmonics with falling amplitudes; f0_hz a value for each sample."""
    phase = 2.0 * np.pi * np.cumsum(f0_hz) / 16_000.0
    sound = sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))
    return (0.1 * sound).astype(np.float32)


@pytest.mark.parametrize("f0_hz", [65.0, 80.0, 110.3, 150.0, 220.7, 330.0, 449.0])
def test_a_steady_voice_is_found_within_half_a_percent(f0_hz: float) -> None:
    found = estimate_f0(voice(np.full(16_000, f0_hz)))
    inner = found[3:-3]
    assert (inner > 0).all()
    assert np.abs(inner / f0_hz - 1.0).max() < 0.005


@pytest.mark.parametrize("strength", [0.2, 0.0])
def test_a_weak_or_missing_fundamental_does_not_change_the_octave(strength: float) -> None:
    phase = 2.0 * np.pi * 120.0 * np.arange(16_000) / 16_000.0
    sound = strength * np.sin(phase) + sum(np.sin(k * phase) for k in range(2, 7))
    found = estimate_f0((0.1 * sound).astype(np.float32))[3:-3]
    assert np.abs(found / 120.0 - 1.0).max() < 0.01


def test_a_glide_is_followed() -> None:
    f0_hz = np.geomspace(100.0, 200.0, 16_000)
    found = estimate_f0(voice(f0_hz))
    true = f0_hz[80::160]
    assert np.abs(found[3:-3] / true[3:-3] - 1.0).max() < 0.02


def test_noise_silence_and_a_constant_are_unvoiced() -> None:
    hiss = np.random.default_rng(1).normal(size=32_000).astype(np.float32)
    assert (estimate_f0(0.1 * hiss) > 0).mean() < 0.05
    assert not estimate_f0(np.zeros(16_000, np.float32)).any()
    assert not estimate_f0(np.full(16_000, 1e-4, np.float32)).any()


def test_a_voice_far_below_speech_level_is_unvoiced() -> None:
    assert not estimate_f0(1e-4 * voice(np.full(16_000, 120.0))).any()


def test_pitch_does_not_depend_on_the_level() -> None:
    loud = voice(np.full(8_000, 180.0))
    assert np.allclose(estimate_f0(loud), estimate_f0(0.1 * loud), rtol=1e-3)


def test_voiced_and_unvoiced_parts_are_told_apart() -> None:
    hiss = 0.02 * np.random.default_rng(2).normal(size=8_000).astype(np.float32)
    found = estimate_f0(np.concatenate([voice(np.full(8_000, 140.0)), hiss]))
    assert (found[3:45] > 0).all()
    assert not found[55:].any()


@pytest.mark.parametrize("length", [0, 159, 160, 800])
def test_short_input_has_a_value_a_frame(length: int) -> None:
    found = estimate_f0(voice(np.full(max(length, 1), 120.0))[:length])
    assert found.shape == (length // 160,)
    assert found.dtype == np.float32


def test_values_stay_in_range() -> None:
    for f0_hz in (40.0, 700.0):
        found = estimate_f0(voice(np.full(8_000, f0_hz)))
        voiced = found[found > 0]
        assert ((voiced >= LOWEST_HZ) & (voiced <= HIGHEST_HZ)).all()


def test_the_difference_is_small_at_the_period_and_near_one_in_noise() -> None:
    periodic = normalised_difference(voice(np.full(8_000, 160.0)))[10]
    assert periodic[0] == 1.0
    assert periodic[100] < 0.01
    hiss = np.random.default_rng(3).normal(size=8_000).astype(np.float32)
    assert abs(normalised_difference(hiss)[10, 50:].mean() - 1.0) < 0.1


@pytest.mark.parametrize("delay_frames", [0, 1, 3])
def test_a_stream_decides_each_frame_from_so_many_later_ones(delay_frames: int) -> None:
    rng = np.random.default_rng(5)
    samples = (0.1 * rng.normal(size=32_000)).astype(np.float32)
    t = np.arange(16_000) / 16_000
    samples[8_000:24_000] += np.sin(2 * np.pi * 170.0 * t).astype(np.float32)
    whole = estimate_f0(samples, delay_frames)
    for frames in (60, 101, 150):
        # The last frame's own window reaches 306 samples beyond it.
        cut = estimate_f0(samples[: frames * 160 + 320], delay_frames)
        known = frames - delay_frames
        assert np.array_equal(cut[:known], whole[:known])


def test_more_delay_comes_nearer_to_the_whole_recording() -> None:
    rng = np.random.default_rng(6)
    t = np.arange(48_000) / 16_000
    loud = (np.sin(2 * np.pi * 1.3 * t) > 0).astype(np.float64)
    tone = np.sin(2 * np.pi * np.cumsum(160 + 40 * np.sin(2 * np.pi * 0.7 * t)) / 16_000)
    samples = (0.2 * tone * loud + 0.02 * rng.normal(size=len(t))).astype(np.float32)
    whole = estimate_f0(samples)
    wrong = [
        np.count_nonzero((estimate_f0(samples, delay) > 0) != (whole > 0)) for delay in (0, 1, 12)
    ]
    assert wrong[0] >= wrong[1] >= wrong[2]
    assert wrong[2] <= 2
    assert np.array_equal(estimate_f0(samples, len(whole)), whole)
