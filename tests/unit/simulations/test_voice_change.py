"""Speed, pitch and formants: each moves what it names and leaves the rest where it was."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from chorister.shared.errors import BadSettings
from chorister.shared.types import FloatArray
from chorister.shared.voice.energy import frame_energy_db
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.lpc import envelope, linear_prediction
from chorister.simulations.voice_change import (
    came_from_hz,
    change_formants,
    change_pitch,
    change_speed,
)

Speech = Callable[[float, int], FloatArray]
CHANGES = [change_speed, change_pitch, change_formants]


def vowel(seconds: float = 1.0, f0_hz: float = 120.0, formant_hz: float = 1500.0) -> FloatArray:
    """Pulses through one resonance."""
    t = np.arange(round(16_000 * seconds)) / 16_000
    pulses = sum(np.cos(2 * np.pi * k * f0_hz * t) for k in range(1, int(7600 / f0_hz)))
    pole = 0.96 * np.exp(2j * np.pi * formant_hz / 16_000)
    made = lfilter([1.0], np.poly([pole, pole.conj()]).real, pulses)
    return (0.1 * made / np.abs(made).max()).astype(np.float32)


def formant_hz(samples: FloatArray) -> float:
    level = envelope(linear_prediction(samples, 10), 1024).mean(0)
    return float(level.argmax() * 8000 / 512)


def pitch_hz(samples: FloatArray) -> float:
    found = estimate_f0(samples)[8:-8]
    return float(np.median(found[found > 0]))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("ratio", [0.0, 0.49, 2.1, -1.0, float("nan")])
def test_a_ratio_out_of_range_is_refused(change: Callable[..., FloatArray], ratio: float) -> None:
    with pytest.raises(BadSettings, match=r"0\.5 to 2"):
        change(vowel(0.1), ratio)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    with pytest.raises(BadSettings, match=r"chorister\[training\]"):
        change_pitch(vowel(0.1), 1.1)


@pytest.mark.parametrize("change", CHANGES)
def test_one_changes_nothing(change: Callable[..., FloatArray]) -> None:
    samples = vowel(0.2)
    assert change(samples, 1.0) is samples


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("length", [0, 1, 159, 161, 1023, 2000])
def test_short_input_stays_finite_and_as_long(
    change: Callable[..., FloatArray], length: int
) -> None:
    found = change(vowel()[:length], 1.25)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if change is not change_speed:
        assert len(found) == length


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_speed_moves_everything(ratio: float) -> None:
    fast = change_speed(vowel(), ratio)
    assert len(fast) == pytest.approx(16_000 / ratio, abs=2)
    assert pitch_hz(fast) == pytest.approx(120 * ratio, rel=0.01)
    assert formant_hz(fast) == pytest.approx(1500 * ratio, rel=0.06)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_pitch_moves_and_formants_stay(ratio: float) -> None:
    moved = change_pitch(vowel(), ratio)
    assert pitch_hz(moved) == pytest.approx(120 * ratio, rel=0.01)
    assert formant_hz(moved) == pytest.approx(1500, rel=0.08)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_formants_move_and_pitch_stays(ratio: float) -> None:
    moved = change_formants(vowel(), ratio)
    assert formant_hz(moved) == pytest.approx(1500 * ratio, rel=0.06)
    assert pitch_hz(moved) == pytest.approx(120, rel=0.005)


@pytest.mark.parametrize("change", [change_pitch, change_formants])
def test_every_sound_stays_in_its_frame(change: Callable[..., FloatArray], speech: Speech) -> None:
    samples = speech(3.0, 2)
    before, after = frame_energy_db(samples), frame_energy_db(change(samples, 1.2))
    spoken = before > -45
    lags = range(-4, 5)
    fits = [np.corrcoef(before[10:-10], np.roll(after, lag)[10:-10])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(fits))]) <= 1
    assert np.abs((after - before)[spoken].mean()) < 3.0


def test_there_and_back_is_nearly_nothing(speech: Speech) -> None:
    samples = speech(1.0, 0)
    back = change_formants(change_formants(samples, 1.1), 1 / 1.1)
    assert np.square(back - samples).sum() < 0.1 * np.square(samples).sum()


def test_the_axis_is_bent_so_that_its_ends_stay() -> None:
    hz = np.linspace(0.0, 8000.0, 161)
    for ratio in (0.7, 1.0, 1.4):
        origin = came_from_hz(hz, ratio)
        assert origin[0] == 0.0
        assert origin[-1] == pytest.approx(8000.0)
        assert (np.diff(origin) > 0).all()
    assert came_from_hz(np.array([1200.0]), 1.2)[0] == pytest.approx(1000.0)
