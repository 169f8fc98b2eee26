"""MFCC against an independent implementation; deltas against slopes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dct

from chorister.shared.errors import BadAudio
from chorister.shared.voice.mfcc import deltas, mel_cepstrum, mfcc

MEL = np.random.default_rng(4).normal(-4.0, 1.5, (9, 80))


@pytest.mark.parametrize("count", [-1, 0, 81])
def test_more_coefficients_than_bands_or_none_are_refused(count: int) -> None:
    with pytest.raises(BadAudio, match="1 to 80 coefficients"):
        mfcc(MEL, count)


def test_they_are_an_orthonormal_cosine_transform() -> None:
    assert np.allclose(mfcc(MEL, 20), dct(MEL, norm="ortho", axis=1)[:, :20], atol=1e-10)


def test_the_lifter_weighs_as_in_the_htk_book() -> None:
    weights = (mfcc(MEL, 13, lifter=22) / mfcc(MEL, 13))[0]
    assert weights[0] == pytest.approx(1.0)
    assert weights[1] == pytest.approx(1 + 11 * np.sin(np.pi / 22))
    assert weights.argmax() == 11
    assert weights[11] == pytest.approx(12.0)


def test_all_coefficients_hold_the_whole_log_mel() -> None:
    """The transform is orthonormal: energies agree, so nothing is lost or counted twice."""
    assert np.allclose((mfcc(MEL, 80) ** 2).sum(1), (MEL**2).sum(1))


def test_the_level_moves_c0_alone() -> None:
    gap = mfcc(MEL + 0.5) - mfcc(MEL)
    assert np.allclose(gap[:, 0], 0.5 * np.sqrt(80))
    assert np.allclose(gap[:, 1:], 0.0, atol=1e-10)


def test_the_raw_series_rebuilds_a_smooth_log_mel() -> None:
    place = np.arange(80) + 0.5
    smooth = 0.7 * np.cos(np.pi * 3 * place / 80) - 0.2 * np.cos(np.pi * 11 * place / 80)
    series = mel_cepstrum(smooth[None], 24)
    assert series[0, 2] == pytest.approx(0.7)
    assert series[0, 10] == pytest.approx(-0.2)
    assert np.allclose(np.delete(series[0], [2, 10]), 0.0, atol=1e-12)


def test_deltas_of_a_ramp_are_its_slope() -> None:
    ramp = np.outer(np.arange(12.0), [0.3, -2.0])
    found = deltas(ramp)
    assert found.shape == ramp.shape
    assert np.allclose(found[2:-2], [0.3, -2.0])
    assert np.allclose(deltas(np.ones((4, 3))), 0.0)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_deltas_of_next_to_nothing(frames: int) -> None:
    assert deltas(MEL[:frames]).shape == (frames, 80)
    assert np.isfinite(deltas(MEL[:frames])).all()
