"""Loudness against the standard's own reference tone, and what matching must not do."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.voice.loudness import loudness_lufs, match_level

RATE = 16_000


def tone(amplitude: float, frequency_hz: float, seconds: float = 3.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def test_the_standards_reference_tone() -> None:
    """BS.1770-4, annex 1: a 0 dB full-scale sine of 997 Hz in one front channel reads -3.01."""
    assert loudness_lufs(tone(1.0, 997.0)) == pytest.approx(-3.01, abs=0.05)


def test_treble_counts_for_more_and_rumble_for_less() -> None:
    middle = loudness_lufs(tone(0.1, 500.0))
    assert loudness_lufs(tone(0.1, 4000.0)) > middle + 2.5
    assert loudness_lufs(tone(0.1, 25.0)) < middle - 8.0


def test_pauses_do_not_count() -> None:
    speech = tone(0.1, 500.0)
    with_pause = np.concatenate([speech, np.zeros(6 * RATE, np.float32)])
    assert loudness_lufs(with_pause) == pytest.approx(loudness_lufs(speech), abs=0.4)


@pytest.mark.parametrize("amplitude", [0.003, 0.1, 0.6])
def test_matching_reaches_the_target(amplitude: float) -> None:
    matched = match_level(tone(amplitude, 700.0), -23.0)
    assert loudness_lufs(matched) == pytest.approx(-23.0, abs=0.05)
    assert matched.dtype == np.float32


def test_a_peak_is_never_pushed_over_full_scale() -> None:
    click = tone(0.01, 700.0)
    click[1000] = 0.9
    assert np.abs(match_level(click, -12.0)).max() <= 0.99


def test_silence_stays_silence() -> None:
    silent = np.zeros(RATE, np.float32)
    assert loudness_lufs(silent) == -np.inf
    np.testing.assert_array_equal(match_level(silent), silent)


def test_a_sample_shorter_than_one_block_is_measured() -> None:
    assert np.isfinite(loudness_lufs(tone(0.1, 500.0, 0.2)))
