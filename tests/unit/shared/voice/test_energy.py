"""Frame energy and speech level against levels that are known."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.voice.energy import LOWEST_DB, frame_energy_db, speech_level_db


@pytest.mark.parametrize("length", [0, 1, 159, 160, 16_159])
def test_frames_are_whole_hops(length: int) -> None:
    assert frame_energy_db(np.ones(length, np.float32)).shape == (length // 160,)


def test_silence_is_the_floor_and_never_infinite() -> None:
    assert (frame_energy_db(np.zeros(3200, np.float32)) == LOWEST_DB).all()
    assert speech_level_db(np.zeros(3200, np.float32)) == pytest.approx(LOWEST_DB)
    assert speech_level_db(np.zeros(100, np.float32)) == LOWEST_DB


def test_a_sine_of_full_scale_is_3_db_below_a_square_wave() -> None:
    wave = np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000).astype(np.float32)
    assert np.allclose(frame_energy_db(wave)[2:-2], -3.0103, atol=0.01)
    assert np.allclose(frame_energy_db(np.sign(wave + 1e-9))[2:-2], 0.0, atol=0.05)


def test_a_click_is_in_the_frames_whose_window_holds_it() -> None:
    samples = np.zeros(6400, np.float32)
    samples[20 * 160 + 80] = 1.0
    loud = np.flatnonzero(frame_energy_db(samples) > -60)
    assert loud.tolist() == [19, 20, 21]


def test_pauses_do_not_lower_the_speech_level() -> None:
    hiss = (0.05 * np.random.default_rng(0).normal(size=32_000)).astype(np.float32)
    paused = np.concatenate([np.zeros(48_000, np.float32), hiss, np.zeros(16_000, np.float32)])
    assert speech_level_db(hiss) == pytest.approx(20 * np.log10(0.05), abs=0.2)
    assert speech_level_db(paused) == pytest.approx(speech_level_db(hiss), abs=0.2)
