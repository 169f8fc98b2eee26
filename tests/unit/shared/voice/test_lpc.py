"""Linear prediction against filters that are known; line spectral frequencies both ways."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from chorister.shared.errors import BadAudio
from chorister.shared.voice.lpc import (
    envelope,
    is_stable,
    levinson,
    linear_prediction,
    lpc_from_lsf,
    lsf_from_lpc,
)

# Two resonances, at 700 and 2300 Hz.
POLES = np.array([0.95 * np.exp(1j * np.pi * 700 / 8000), 0.9 * np.exp(1j * np.pi * 2300 / 8000)])
FILTER = np.poly(np.concatenate([POLES, POLES.conj()])).real


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=length)).astype(np.float32)


def resonant(length: int = 16_000) -> np.ndarray:
    return lfilter([1.0], FILTER, noise(length)).astype(np.float32)


@pytest.mark.parametrize("order", [-1, 0, 400])
def test_an_order_without_a_predictor_is_refused(order: int) -> None:
    with pytest.raises(BadAudio, match="1 to 399"):
        linear_prediction(noise(1600), order)


@pytest.mark.parametrize("length", [0, 159, 160, 5000])
def test_frames_are_whole_hops(length: int) -> None:
    found = linear_prediction(noise(length), 12)
    assert found.coefficients.shape == (length // 160, 13)
    assert found.gain.shape == (length // 160,)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(3200, np.float32),
        np.ones(3200, np.float32),
        np.sin(2 * np.pi * 1000 * np.arange(3200) / 16_000).astype(np.float32),
        np.sign(noise(3200)),
    ],
    ids=["silence", "constant", "sine", "clipped"],
)
def test_hard_signals_give_stable_finite_predictors(samples: np.ndarray) -> None:
    found = linear_prediction(samples, 18)
    assert np.isfinite(found.coefficients).all()
    assert (found.gain > 0).all()
    assert is_stable(found.coefficients).all()
    assert (np.diff(lsf_from_lpc(found.coefficients), axis=1) > 0).all()


def test_the_envelope_of_a_known_filter_is_found() -> None:
    found = envelope(linear_prediction(resonant(64_000), 4), 512).mean(0)
    truth = np.log(0.1) - np.log(np.abs(np.fft.rfft(FILTER, 512)))
    assert np.abs(found - truth).max() < 0.3
    assert abs(int(found[:48].argmax()) - int(truth[:48].argmax())) <= 1
    assert abs(int(found[48:].argmax()) - int(truth[48:].argmax())) <= 2


def test_the_gain_is_the_level_of_what_drives_the_filter() -> None:
    found = linear_prediction(resonant(), 4)
    assert np.median(found.gain) == pytest.approx(0.1, rel=0.1)
    louder = linear_prediction(3 * resonant(), 4)
    gap = envelope(louder, 512) - envelope(linear_prediction(resonant(), 4), 512)
    assert np.allclose(gap, np.log(3.0), atol=1e-3)


def test_levinson_solves_the_normal_equations() -> None:
    rng = np.random.default_rng(2)
    rows = np.stack([np.correlate(x, x, "full")[49:60] for x in rng.normal(size=(5, 50))])
    found, error = levinson(rows)
    for row, coefficients, power in zip(rows, found, error, strict=True):
        assert np.allclose(coefficients[1:], solve_toeplitz(row[:-1], -row[1:]))
        assert power == pytest.approx(float(coefficients @ row))


@pytest.mark.parametrize("order", [1, 2, 3, 10, 17, 18])
def test_line_spectral_frequencies_come_back_as_the_predictor(order: int) -> None:
    coefficients = linear_prediction(resonant(8000), order).coefficients
    lsf_hz = lsf_from_lpc(coefficients)
    assert lsf_hz.shape == (50, order)
    assert (np.diff(lsf_hz, axis=1) > 0).all()
    assert ((lsf_hz > 0) & (lsf_hz < 8000)).all()
    assert np.allclose(lpc_from_lsf(lsf_hz), coefficients, atol=1e-9)


def test_a_flat_filter_has_evenly_spaced_frequencies() -> None:
    flat = np.eye(1, 11)
    assert np.allclose(lsf_from_lpc(flat), 8000 * np.arange(1, 11) / 11)


def test_any_rising_frequencies_make_a_stable_predictor() -> None:
    rng = np.random.default_rng(5)
    for order in (1, 4, 9, 18):
        lsf_hz = np.sort(rng.uniform(10.0, 7990.0, (200, order)), axis=1)
        # Lines that nearly meet are poles on the circle, where stability is a matter of rounding.
        lsf_hz = lsf_hz[(np.diff(lsf_hz, axis=1) > 20).all(axis=1)]
        assert len(lsf_hz) > 5
        found = lpc_from_lsf(lsf_hz)
        assert is_stable(found).all()
        assert np.allclose(lsf_from_lpc(found), lsf_hz, atol=0.1)


def test_stability_is_that_of_the_poles() -> None:
    outside = np.array([1.0, -2 * 1.02 * np.cos(0.5), 1.02**2])
    inside = np.array([1.0, -2 * 0.98 * np.cos(0.5), 0.98**2])
    assert is_stable(np.stack([outside, inside, [1.0, 0.0, 1.0]])).tolist() == [False, True, False]


def test_an_unstable_predictor_has_no_line_spectral_frequencies() -> None:
    with pytest.raises(BadAudio, match="1 of 2 are unstable"):
        lsf_from_lpc(np.array([[1.0, 0.0, 1.1], [1.0, 0.0, 0.5]]))


@pytest.mark.parametrize("row", [[500.0, 400.0], [0.0, 400.0], [400.0, 8000.0], [400.0, 400.0]])
def test_frequencies_out_of_order_or_range_are_refused(row: list[float]) -> None:
    with pytest.raises(BadAudio, match="rise within 0 to 8000 Hz"):
        lpc_from_lsf(np.array([row]))
