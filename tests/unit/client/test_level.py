"""Levels follow the source, pauses stay pauses, peaks stay below full scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chorister.client.level import PEAK, LevelFollower, frame_levels, limit
from chorister.shared.types import FloatArray
from chorister.shared.voice.loudness import loudness_lufs

RATE = 16_000
Speech = Callable[[float, int], FloatArray]


def hiss(count: int, level: float) -> FloatArray:
    return np.random.default_rng(0).normal(0, level, count).astype(np.float32)


def test_a_noisy_conversion_of_silence_becomes_silent(speech: Speech) -> None:
    source = np.concatenate([speech(2.0, 0), np.zeros(RATE, np.float32)])
    made = source + hiss(len(source), 0.01)
    for known in (None, loudness_lufs(source)):
        gated = LevelFollower(known).follow(source, made)
        assert np.abs(gated[-RATE + 1600 :]).max() < 1e-4
        assert loudness_lufs(gated) == pytest.approx(loudness_lufs(source), abs=0.2)


def test_a_silent_source_gives_silence() -> None:
    made = hiss(RATE, 0.1)
    assert np.abs(LevelFollower().follow(np.zeros(RATE, np.float32), made)).max() < 1e-4


def test_room_noise_alone_is_a_pause_when_the_file_is_known_to_be_louder() -> None:
    room, made = hiss(RATE, 0.002), hiss(RATE, 0.1)
    quiet = LevelFollower(-20.0).follow(room, made)
    ratio = np.sqrt(np.square(quiet).mean() / np.square(room).mean())
    # 2 dB at most, of the loudest of seven frames.
    assert ratio < 1.26 * 1.3


def test_a_conversion_that_is_quieter_in_pauses_is_not_raised(speech: Speech) -> None:
    room = np.concatenate([speech(2.0, 0), hiss(2 * RATE, 1e-3)])
    made = room.copy()
    made[2 * RATE :] *= np.float32(0.01)
    gated = LevelFollower(loudness_lufs(room)).follow(room, made)
    found = np.square(gated[3 * RATE :]).mean() / np.square(made[3 * RATE :]).mean()
    assert found == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("factor", [0.05, 1.0, 30.0])
def test_speech_is_brought_to_its_level(speech: Speech, factor: float) -> None:
    source = speech(2.0, 0)
    made = LevelFollower().follow(source, source * np.float32(factor))
    np.testing.assert_allclose(made[1600:-1600], source[1600:-1600], rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("rate", [0.5, 1.6])
def test_a_level_that_moves_is_followed_at_any_rate(rate: float) -> None:
    """The source falls by 20 dB half-way; what was made of it does not."""
    source, made = hiss(16 * RATE, 0.1), hiss(round(16 * RATE / rate), 0.03)
    source[8 * RATE :] *= np.float32(0.1)
    followed = LevelFollower(loudness_lufs(source)).follow(source, made, rate=rate)
    for start, end in ((0, 6), (10, 16)):
        wanted = loudness_lufs(source[start * RATE : end * RATE])
        found = followed[round(start * RATE / rate) : round(end * RATE / rate)]
        assert loudness_lufs(found) == pytest.approx(wanted, abs=0.3)


def test_no_level_is_carried_from_segment_to_segment(speech: Speech) -> None:
    """A converter that answers louder and louder is brought back, however long it goes on."""
    follower = LevelFollower()
    for turn in range(6):
        source = speech(6.0, turn)
        followed = follower.follow(source, source * np.float32(1.6**turn))
        assert loudness_lufs(followed) == pytest.approx(loudness_lufs(source), abs=0.5)


def test_silence_first_takes_nothing_for_a_level(speech: Speech) -> None:
    follower = LevelFollower()
    silence = follower.follow(np.zeros(RATE, np.float32), hiss(RATE, 0.1))
    source = speech(4.0, 3)
    followed = follower.follow(source, source * np.float32(9.0))
    assert not silence.any()
    assert loudness_lufs(followed) == pytest.approx(loudness_lufs(source), abs=0.2)


def test_the_last_frame_may_be_short() -> None:
    samples = np.full(170, 0.5, np.float32)
    np.testing.assert_allclose(frame_levels(samples), [0.5, 0.5 / 4])


def test_peaks_are_limited_and_the_rest_is_not_touched(speech: Speech) -> None:
    samples = speech(1.0, 0)
    samples[8000] = 3.0
    limited = limit(samples)
    assert np.abs(limited).max() <= PEAK
    far = np.abs(np.arange(len(samples)) - 8000) > 200
    np.testing.assert_array_equal(limited[far], samples[far])
    assert np.abs(limited[8000]) > 0.9 * PEAK
    assert np.abs(limit(samples, 0.5)).max() <= 0.5


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.full(1, 2.0, np.float32)])
def test_short_input_is_limited_too(samples: FloatArray) -> None:
    limited = limit(samples)
    assert limited.shape == samples.shape
    assert np.all(np.abs(limited) <= PEAK)
