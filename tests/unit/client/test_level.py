"""Pauses stay pauses, peaks stay below full scale, and everything else is left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chorister.client.level import PEAK, limit, silence_gate, speech_gain
from chorister.shared.types import FloatArray

RATE = 16_000
Speech = Callable[[float, int], FloatArray]


def test_a_noisy_conversion_of_silence_becomes_silent(speech: Speech) -> None:
    source = np.concatenate([speech(2.0, 0), np.zeros(RATE, np.float32)])
    made = source + np.random.default_rng(0).normal(0, 0.01, len(source)).astype(np.float32)
    gated = silence_gate(source, made, 1.0)
    assert np.abs(gated[-RATE + 1600 :]).max() < 1e-4
    loud = slice(RATE // 20, RATE * 2 // 5)
    np.testing.assert_array_equal(gated[loud], made[loud])


def test_a_silent_source_gives_silence() -> None:
    made = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert np.abs(silence_gate(np.zeros(RATE, np.float32), made, 1.0)).max() < 1e-4


def test_a_quiet_conversion_is_not_raised_in_pauses(speech: Speech) -> None:
    source = speech(2.0, 0) * np.float32(0.001)
    gated = silence_gate(source, source * np.float32(0.01), 1.0)
    np.testing.assert_allclose(gated, source * np.float32(0.01), rtol=1e-6)


@pytest.mark.parametrize("factor", [0.05, 1.0, 30.0])
def test_the_gain_brings_speech_to_its_level(speech: Speech, factor: float) -> None:
    source = speech(2.0, 0)
    f0_hz = np.full(len(source) // 160, 100.0, np.float32)
    made = source * np.float32(factor)
    assert speech_gain(source, made, f0_hz) == pytest.approx(1 / factor, rel=1e-4)


def test_the_gain_is_unknown_without_voiced_speech(speech: Speech) -> None:
    source = speech(2.0, 0)
    assert speech_gain(source, source, np.zeros(len(source) // 160, np.float32)) is None


def test_peaks_are_limited_and_the_rest_is_not_touched(speech: Speech) -> None:
    samples = speech(1.0, 0)
    samples[8000] = 3.0
    limited = limit(samples)
    assert np.abs(limited).max() <= PEAK
    far = np.abs(np.arange(len(samples)) - 8000) > 200
    np.testing.assert_array_equal(limited[far], samples[far])
    assert np.abs(limited[8000]) > 0.9 * PEAK


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.full(1, 2.0, np.float32)])
def test_short_input_is_limited_too(samples: FloatArray) -> None:
    limited = limit(samples)
    assert limited.shape == samples.shape
    assert np.all(np.abs(limited) <= PEAK)
