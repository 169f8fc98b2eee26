"""The vocoder's noise: as even as it says, white in the long run, and the same from everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chorister.shared.voice.features import log_mel
from chorister.shared.voice.hiss import LOOP_SCALE, PERIOD, draw_hiss, hiss_at, loop

DB = 20.0 / np.log(10.0)


def test_it_has_mean_0_and_variance_1() -> None:
    samples = loop().astype(np.float64) * LOOP_SCALE
    assert abs(samples.mean()) < 0.01
    assert samples.var() == pytest.approx(1.0, abs=0.01)
    # Near a normal distribution: no clicks, hardly anything cut off.
    assert np.mean(samples**4) == pytest.approx(3.0, abs=0.2)
    assert np.mean(np.abs(loop().astype(int)) == 127) < 1e-3


def test_the_level_of_every_band_is_more_even_than_that_of_white_noise() -> None:
    white = np.random.default_rng(1).standard_normal(PERIOD).astype(np.float32)
    even, uneven = (DB * log_mel(x)[5:-5].std(axis=0) for x in (hiss_at(0, PERIOD), white))
    assert np.all(even < 0.75 * uneven)
    assert even.mean() < 0.5 * uneven.mean()


def test_it_is_white_and_without_memory() -> None:
    samples = hiss_at(0, PERIOD).astype(np.float64)
    power = np.abs(np.fft.rfft(samples)[1:]) ** 2 / PERIOD
    assert power.max() < 22  # no line: the largest of so many exponential variables is near 11
    bands = power[: len(power) // 40 * 40].reshape(40, -1).mean(axis=1)
    assert np.all(np.abs(bands - 1.0) < 0.06)
    # From twice the window on nothing repeats, within the loop.
    for lag in (800, 1_600, 16_000, PERIOD // 2):
        assert abs(np.mean(samples * np.roll(samples, lag))) < 0.02


def test_no_step_of_the_analysis_is_heard_as_a_pitch() -> None:
    """Frames were made flat 80 samples apart: neither level nor shape may follow that grid."""
    samples = hiss_at(0, PERIOD).astype(np.float64)
    level = (samples.reshape(-1, 80) ** 2).mean(axis=0)
    white = (np.random.default_rng(2).standard_normal(PERIOD).reshape(-1, 80) ** 2).mean(axis=0)
    assert level.std() < 2.0 * white.std()
    for lag in (80, 160, 240, 320, 400):
        assert abs(np.mean(samples * np.roll(samples, lag))) < 0.05


def test_segments_go_on_where_the_one_before_stopped() -> None:
    np.testing.assert_array_equal(hiss_at(0, 900)[300:], hiss_at(300, 600))
    np.testing.assert_array_equal(hiss_at(PERIOD - 10, 20)[10:], hiss_at(0, 10))
    np.testing.assert_array_equal(hiss_at(2**40, 50), hiss_at(2**40 % PERIOD, 50))


def test_a_draw_is_a_piece_of_the_loop_and_follows_its_generator() -> None:
    drawn = draw_hiss((3, 400), torch.Generator().manual_seed(4))
    assert torch.equal(drawn, draw_hiss((3, 400), torch.Generator().manual_seed(4)))
    twice = np.tile(hiss_at(0, PERIOD), 2)
    windows = np.lib.stride_tricks.sliding_window_view(twice, 400)
    places = [int(np.flatnonzero(np.all(windows == row.numpy(), axis=1))[0]) for row in drawn]
    assert len(set(places)) == 3
