"""Disturbed sources: bad lists first, then that each disturbance is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.errors import UsageError
from chorister.shared.types import Recording
from chorister.simulations.conditions import CLEAN, CONDITIONS, NARROW, NOISE, degrade
from chorister.simulations.conditions import read_conditions as read

TONE = np.sin(2 * np.pi * 6000.0 * np.arange(16_000) / 16_000)
HUM = np.sin(2 * np.pi * 440.0 * np.arange(16_000) / 16_000)
RECORDING = Recording((0.2 * (TONE + HUM)).astype(np.float32), "one.wav")


def power(samples: np.ndarray, hz: float) -> float:
    return float(np.abs(np.fft.rfft(samples)[round(hz)]) ** 2)


@pytest.mark.parametrize("bad", ["", "fog", "noise,fog", ","])
def test_unknown_conditions_are_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="noise, room, narrow"):
        read(bad)


def test_lists_of_conditions() -> None:
    assert read("all") == tuple(CONDITIONS)
    assert read("none") == ()
    assert read("room, noise,room") == ("room", "noise")


def test_clean_is_untouched() -> None:
    assert degrade(RECORDING, CLEAN) is RECORDING


def test_the_narrow_band_ends_at_4_khz() -> None:
    found = degrade(RECORDING, NARROW).samples
    assert power(found, 440.0) == pytest.approx(power(RECORDING.samples, 440.0), rel=0.05)
    assert power(found, 6000.0) < 1e-4 * power(RECORDING.samples, 6000.0)


def test_noise_is_10_db_below_the_speech_and_belongs_to_the_file() -> None:
    found = degrade(RECORDING, NOISE).samples
    noise = found - RECORDING.samples
    ratio_db = 10 * np.log10(np.mean(RECORDING.samples**2) / np.mean(noise**2))
    assert ratio_db == pytest.approx(10.0, abs=0.5)
    assert (found == degrade(RECORDING, NOISE).samples).all()
    other = degrade(Recording(RECORDING.samples, "two.wav"), NOISE).samples
    assert not np.array_equal(other, found)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_lengths_and_limits_hold(condition: str) -> None:
    loud = Recording(np.clip(8 * RECORDING.samples, -1, 1).astype(np.float32)[:15_999], "loud")
    found = degrade(loud, condition)
    assert found.samples.shape == loud.samples.shape
    assert found.samples.dtype == np.float32
    assert np.abs(found.samples).max() <= 1.0
