"""Rooms that decay in their time, noise at its level, a clear word where a package is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.voice.energy import speech_level_db
from chorister.simulations.acoustics import (
    add_noise,
    bell,
    coloured_noise,
    equalise,
    image_response,
    reverberate,
)

RATE = 16_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_room_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(BadSettings, match=r"chorister\[training\]"):
        image_response(0.3, rng())


def test_a_simulated_room_starts_with_its_direct_sound_and_is_the_same_again() -> None:
    pytest.importorskip("pyroomacoustics")
    response = image_response(0.1, rng())
    assert np.square(response).sum() == pytest.approx(1.0)
    assert np.abs(response).argmax() == pytest.approx(8, abs=1)
    assert len(response) <= 0.12 * RATE
    np.testing.assert_array_equal(response, image_response(0.1, rng()))


@pytest.mark.parametrize(("t60_s", "seed"), [(0.25, 5), (0.35, 2)])
def test_a_simulated_room_decays_in_its_time(t60_s: float, seed: int) -> None:
    """Within a third: Sabine's formula is no better in small rooms."""
    pytest.importorskip("pyroomacoustics")
    response = image_response(t60_s, rng(seed))
    left_db = 10 * np.log10(np.cumsum(np.square(response)[::-1])[::-1])
    fall = int(np.argmax(left_db < -20)) - int(np.argmax(left_db < -5))
    assert 60 / 15 * fall / RATE == pytest.approx(t60_s, rel=0.34)


def test_a_room_does_not_move_what_is_said() -> None:
    pytest.importorskip("pyroomacoustics")
    click = np.zeros(4000)
    click[1000] = 1.0
    heard = reverberate(click, image_response(0.2, rng(3)))
    assert len(heard) == 4000
    assert not np.abs(heard[:990]).max() > 1e-9
    assert np.abs(heard).argmax() == pytest.approx(1008, abs=1)


@pytest.mark.parametrize("slope_db", [0.0, -3.0, -6.0])
def test_noise_has_its_slope_and_unit_power(slope_db: float) -> None:
    noise = coloured_noise(64_000, slope_db, rng())
    assert np.mean(noise**2) == pytest.approx(1.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(64_000, 1 / RATE)

    def level(low_hz: float) -> float:
        return float(10 * np.log10(power[(hz >= low_hz) & (hz < 2 * low_hz)].mean()))

    assert level(2000) - level(500) == pytest.approx(2 * slope_db, abs=0.5)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_noise_of_next_to_nothing_is_finite(count: int) -> None:
    assert np.isfinite(coloured_noise(count, -6.0, rng())).all()


def test_the_ratio_is_to_the_speech_and_not_to_its_pauses() -> None:
    spoken = 0.05 * rng(1).normal(size=16_000)
    paused = np.concatenate([np.zeros(32_000), spoken, np.zeros(16_000)])
    added = add_noise(paused, 10.0, rng(2)) - paused
    assert 20 * np.log10(0.05 / added.std()) == pytest.approx(10.0, abs=0.3)


def test_silence_gets_no_noise_to_speak_of() -> None:
    noisy = add_noise(np.zeros(8000), 10.0, rng()).astype(np.float32)
    assert speech_level_db(noisy) < -90


def test_a_bell_lifts_its_centre_alone() -> None:
    wave = 0.1 * rng().normal(size=32_000)
    heard = equalise(bell(1000.0, 12.0, 2.0)[None], wave)
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(wave)))
    hz = np.fft.rfftfreq(32_000, 1 / RATE)
    assert np.median(gain_db[(hz > 980) & (hz < 1020)]) == pytest.approx(12.0, abs=0.3)
    assert abs(np.median(gain_db[hz > 6000])) < 0.5
