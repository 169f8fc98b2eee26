"""Gates: files that break each of them, and what the product delivers, which breaks none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chorister.shared.types import FloatArray
from chorister.shared.voice.loudness import loudness_lufs
from chorister.simulations.gates import check_gates, deliver

Speech = Callable[[float, int], FloatArray]
PITCH = np.where(np.arange(300) % 10 < 7, 120.0, 0.0).astype(np.float32)


@pytest.fixture(scope="module")
def source(speech: Speech) -> FloatArray:
    """Three seconds, the middle one silent but for a hum at -70 dBFS."""
    samples = (0.3 * speech(3.0, 4)).astype(np.float32)
    samples[16_000:32_000] = np.random.default_rng(0).normal(0.0, 3e-4, 16_000)
    return samples


def test_the_source_itself_passes(source: FloatArray) -> None:
    found = check_gates(source, source, PITCH, PITCH)
    assert found.to_plain() == dict.fromkeys(("loudness", "unclipped", "silence", "voicing"), True)


def test_a_quieter_file_fails_loudness_alone(source: FloatArray) -> None:
    found = check_gates(source, source * np.float32(0.85), PITCH, PITCH)
    assert (found.loudness, found.unclipped, found.silence) == (False, True, True)


def test_a_sample_at_full_scale_is_clipped(source: FloatArray) -> None:
    loud = source.copy()
    loud[100] = -1.0
    assert not check_gates(source, loud, PITCH, PITCH).unclipped


def test_hiss_in_a_pause_is_heard(source: FloatArray) -> None:
    hissing = source.copy()
    hissing[16_000:32_000] += np.random.default_rng(1).normal(0.0, 0.01, 16_000).astype(np.float32)
    assert check_gates(source, hissing, PITCH, PITCH).silence is False


def test_without_pauses_there_is_nothing_to_keep_silent(speech: Speech) -> None:
    steady = np.sin(np.arange(16_000) * 0.1).astype(np.float32) * np.float32(0.2)
    assert check_gates(steady, steady, PITCH[:100], PITCH[:100]).silence is None


@pytest.mark.parametrize(("wrong", "passes"), [(15, True), (16, False)])
def test_one_frame_in_twenty_may_be_voiced_wrongly(
    source: FloatArray, wrong: int, passes: bool
) -> None:
    spoken = PITCH.copy()
    spoken[np.flatnonzero(PITCH)[:wrong]] = 0.0
    assert check_gates(source, source, PITCH, spoken).voicing is passes


def test_silence_in_silence_out(source: FloatArray) -> None:
    nothing = np.zeros(48_000, np.float32)
    assert check_gates(nothing, nothing, PITCH, PITCH).loudness
    assert not check_gates(nothing, source, PITCH, PITCH).loudness
    assert not check_gates(source, nothing, PITCH, PITCH).loudness


def test_what_is_delivered_passes(source: FloatArray, speech: Speech) -> None:
    made = (0.02 * speech(3.0, 5)).astype(np.float32)
    delivered = deliver(source, made)
    found = check_gates(source, delivered, PITCH, PITCH)
    assert (found.loudness, found.unclipped, found.silence) == (True, True, True)
    assert loudness_lufs(delivered) == pytest.approx(loudness_lufs(source), abs=0.3)
