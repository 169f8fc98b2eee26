"""Shifts: the same for everybody, the same every time, and strong enough to be learnt."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.types import FloatArray, Recording
from chorister.simulations.shifts import SHIFT_KINDS, apply_shift

RATE = 16_000
SHIFTS = [kind for kind in SHIFT_KINDS if kind != "none"]


def wide_band(seconds: float = 4.0, level: float = 0.05, seed: int = 3) -> FloatArray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def band_db(samples: FloatArray, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(10 * np.log10(power[(hz >= low_hz) & (hz < high_hz)].mean()))


def gain_db(kind: str, low_hz: float, high_hz: float) -> float:
    before = Recording(wide_band(), "a")
    after = apply_shift(before, kind)
    return band_db(after.samples, low_hz, high_hz) - band_db(before.samples, low_hz, high_hz)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(BadSettings, match="'cellar'") as caught:
        apply_shift(Recording(wide_band(), "a"), "cellar")
    assert all(kind in caught.value.rule for kind in SHIFT_KINDS)


def test_none_changes_nothing() -> None:
    recording = Recording(wide_band(), "a")
    assert apply_shift(recording, "none") is recording


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("length", [1, 3, 4801, 16_000])
def test_length_name_and_input_stay(kind: str, length: int) -> None:
    samples = wide_band()[:length]
    kept = samples.copy()
    shifted = apply_shift(Recording(samples, "a"), kind)
    assert (len(shifted.samples), shifted.name, shifted.samples.dtype) == (length, "a", np.float32)
    np.testing.assert_array_equal(samples, kept)
    assert np.isfinite(shifted.samples).all()


@pytest.mark.parametrize("kind", SHIFTS)
def test_full_scale_stays_within_full_scale(kind: str) -> None:
    loud = np.sign(wide_band()).astype(np.float32)
    assert np.abs(apply_shift(Recording(loud, "a"), kind).samples).max() <= 1.0


@pytest.mark.parametrize("kind", SHIFTS)
def test_the_same_file_sounds_the_same(kind: str) -> None:
    recording = Recording(wide_band(), "a")
    first, second = apply_shift(recording, kind), apply_shift(recording, kind)
    np.testing.assert_array_equal(first.samples, second.samples)


@pytest.mark.parametrize("kind", ["microphone", "telephone"])
def test_two_files_have_their_own_noise(kind: str) -> None:
    silence = np.zeros(RATE, np.float32)
    first = apply_shift(Recording(silence, "a"), kind).samples
    second = apply_shift(Recording(silence, "b"), kind).samples
    assert np.sqrt(np.mean(first**2)) > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_the_microphone_colours() -> None:
    middle = gain_db("microphone", 700, 800)
    assert gain_db("microphone", 2400, 2800) > middle + 4
    assert gain_db("microphone", 1100, 1300) < middle - 3
    assert -16 < gain_db("microphone", 6500, 7800) < -6


def test_the_telephone_keeps_its_band_only() -> None:
    assert abs(gain_db("telephone", 600, 2500)) < 1.5
    assert gain_db("telephone", 20, 150) < -20
    assert gain_db("telephone", 4500, 8000) < -20


def test_the_room_decays_by_60_db_in_its_time() -> None:
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    tail = apply_shift(Recording(click, "a"), "room").samples.astype(np.float64)
    remaining = np.cumsum(tail[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(remaining / remaining[200])
    at = int(np.argmax(decay_db < -25)) - 200
    assert at / RATE * 60 / 25 == pytest.approx(0.4, abs=0.08)


def test_the_room_keeps_the_level() -> None:
    assert gain_db("room", 300, 3000) == pytest.approx(0.0, abs=1.5)
