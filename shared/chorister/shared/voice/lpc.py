"""Linear prediction: coefficients, line spectral frequencies and the envelope that they describe.

The predictor is 1 + a_1 z^-1 + ... + a_p z^-p, its inverse the all-pole envelope of a frame.
Shape letters: F frames, T samples, p order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.frames import frames_of, hann

LPC_ORDER = 18
LPC_WINDOW_SAMPLES = 400
# Added to the power at lag 0, relative: -50 dB of white noise keeps silence and tones solvable.
_WHITE_NOISE = 1e-5
_SMALLEST_POWER = 1e-12
_FRAMES_AT_ONCE = 4096

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearPrediction:
    """All-pole envelopes of a recording.

    Attributes:
        coefficients: shape (F, p + 1), float64, the first one 1.
        gain: shape (F,), float64, above 0: root mean square of the prediction error.
    """

    coefficients: _Array
    gain: _Array


def linear_prediction(samples: FloatArray, order: int = LPC_ORDER) -> LinearPrediction:
    """Autocorrelation method with a Hann window of 25 ms (Makhoul 1975, Proc. IEEE 63).

    Args:
        samples: shape (T,), float32, 16 kHz; zeros are assumed beyond both ends.
        order: p, 1 to 399; two poles a formant and a few for the slope: 16 to 20 at 16 kHz.

    Returns:
        F = T // 160 frames; every predictor is stable.

    Raises:
        BadAudio: the order is out of range.
    """
    if not 1 <= order < LPC_WINDOW_SAMPLES:
        raise BadAudio(
            f"The order of a linear prediction is 1 to {LPC_WINDOW_SAMPLES - 1}.",
            str(order),
            "Choose 16 to 20 for speech.",
        )
    framed, window = frames_of(samples, LPC_WINDOW_SAMPLES), hann(LPC_WINDOW_SAMPLES)
    coefficients = np.empty((len(framed), order + 1))
    gain = np.empty(len(framed))
    for start in range(0, len(framed), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        power = _autocorrelation(framed[part] * window, order) / float((window**2).sum())
        coefficients[part], error = levinson(power)
        gain[part] = np.sqrt(error)
    return LinearPrediction(coefficients, gain)


def _autocorrelation(framed: NDArray[np.float32], order: int) -> _Array:
    wide = framed.astype(np.float64)
    lags = [np.einsum("ft,ft->f", wide[:, lag:], wide[:, : wide.shape[1] - lag]) for lag in
            range(order + 1)]  # fmt: skip
    found = np.stack(lags, axis=1)
    found[:, 0] = found[:, 0] * (1.0 + _WHITE_NOISE) + _SMALLEST_POWER
    return found


def levinson(autocorrelation: _Array) -> tuple[_Array, _Array]:
    """Levinson-Durbin recursion on every row.

    Args:
        autocorrelation: shape (F, p + 1), each row positive definite.

    Returns:
        predictors of shape (F, p + 1), the first coefficient 1, and the power of their errors,
        shape (F,), above 0.
    """
    rows, lags = autocorrelation.shape
    coefficients = np.zeros((rows, lags))
    coefficients[:, 0] = 1.0
    error = autocorrelation[:, 0].copy()
    for m in range(1, lags):
        turned = coefficients[:, :m]
        reflection = -(turned * autocorrelation[:, m:0:-1]).sum(axis=1) / error
        coefficients[:, 1 : m + 1] += reflection[:, None] * turned[:, ::-1]
        error *= 1.0 - reflection**2
    return coefficients, error


def is_stable(coefficients: _Array) -> NDArray[np.bool_]:
    """Whether all poles lie inside the unit circle, by the step-down recursion.

    Args:
        coefficients: shape (F, p + 1), the first one 1.

    Returns:
        shape (F,).
    """
    left = np.array(coefficients, np.float64)
    stable = np.ones(len(left), bool)
    for m in range(left.shape[1] - 1, 0, -1):
        reflection = left[:, m].copy()
        stable &= np.abs(reflection) < 1.0
        # A row that failed already is carried on as any other number: its verdict stays.
        reflection = np.where(stable, reflection, 0.0)[:, None]
        left = (left[:, :m] - reflection * left[:, m:0:-1]) / (1.0 - reflection**2)
    return stable


def envelope(prediction: LinearPrediction, fft_samples: int) -> _Array:
    """Log magnitude of the all-pole filters.

    Args:
        prediction: F frames.
        fft_samples: length of the transform, even, above p.

    Returns:
        shape (F, fft_samples // 2 + 1), natural logarithm of magnitudes, from 0 to 8000 Hz; on the
        scale of `gain`, so that a constant times the samples adds its logarithm.
    """
    spectrum = np.abs(np.fft.rfft(prediction.coefficients, fft_samples, axis=1))
    return np.asarray(np.log(prediction.gain)[:, None] - np.log(np.maximum(spectrum, 1e-12)))


def lsf_from_lpc(coefficients: _Array) -> _Array:
    """Line spectral frequencies of predictors (Itakura 1975; Soong and Juang 1984).

    Args:
        coefficients: shape (F, p + 1), the first one 1, stable.

    Returns:
        shape (F, p), Hz, rising in each row, above 0 and below 8000.

    Raises:
        BadAudio: a predictor is not stable, so it has no such frequencies.
    """
    unstable = int((~is_stable(coefficients)).sum())
    if unstable:
        raise BadAudio(
            "Line spectral frequencies exist for stable predictors only.",
            f"{unstable} of {len(coefficients)} are unstable",
            "Take predictors from linear_prediction.",
        )
    order = coefficients.shape[1] - 1
    padded = np.pad(coefficients, ((0, 0), (0, 1)))
    turned = padded[:, ::-1]
    # The sum has a zero at -1, the difference one at 1; at odd orders the difference has both.
    even = order % 2 == 0
    both = [
        _divided(padded + turned, np.array([1.0, 1.0]) if even else np.array([1.0])),
        _divided(padded - turned, np.array([1.0, -1.0]) if even else np.array([1.0, 0.0, -1.0])),
    ]
    angles = np.sort(np.concatenate([_upper_angles(one) for one in both], axis=1), axis=1)
    return angles * (SAMPLE_RATE_HZ / (2.0 * np.pi))


def _divided(polynomials: _Array, divisor: _Array) -> _Array:
    """Quotient of every row by a polynomial with leading coefficient 1 that divides it."""
    left = polynomials.copy()
    count = left.shape[1] - len(divisor) + 1
    for k in range(count):
        left[:, k + 1 : k + len(divisor)] -= left[:, k : k + 1] * divisor[1:]
    return left[:, :count]


def _upper_angles(polynomials: _Array) -> _Array:
    """Angles in (0, pi) of zeros on the unit circle, shape (F, n // 2) for degree n.

    With z + 1/z = 2 x a palindrome of degree n is a Chebyshev series of degree n / 2 in x, whose
    zeros are real: cosines of the angles.
    """
    degree = polynomials.shape[1] - 1
    half = degree // 2
    if half == 0:
        return np.zeros((len(polynomials), 0))
    series = 2.0 * polynomials[:, half::-1]
    series[:, 0] /= 2.0
    # Colleague matrix: its eigenvalues are the zeros of the series.
    matrix = np.zeros((len(polynomials), half, half))
    below, above = np.arange(1, half), np.arange(half - 1)
    matrix[:, below, above] = 0.5
    matrix[:, above, below] = 0.5
    if half > 1:
        matrix[:, 0, 1] = 1.0
    weight = 1.0 if half == 1 else 0.5
    matrix[:, -1, :] -= weight * series[:, :half] / series[:, half:]
    zeros = np.linalg.eigvals(matrix).real
    return np.asarray(np.arccos(np.clip(zeros, -1.0, 1.0)))


def lpc_from_lsf(lsf_hz: _Array) -> _Array:
    """Predictors with given line spectral frequencies: the inverse of `lsf_from_lpc`.

    Args:
        lsf_hz: shape (F, p), Hz, rising in each row, above 0 and below 8000.

    Returns:
        shape (F, p + 1), the first one 1; stable, whatever the frequencies are.

    Raises:
        BadAudio: frequencies are out of range or do not rise.
    """
    rising = (np.diff(lsf_hz, axis=1) > 0).all()
    if not rising or (lsf_hz <= 0).any() or (lsf_hz >= SAMPLE_RATE_HZ / 2).any():
        raise BadAudio(
            "Line spectral frequencies rise within 0 to 8000 Hz.",
            f"rows from {lsf_hz.min(initial=np.inf):.1f} to {lsf_hz.max(initial=0.0):.1f} Hz, "
            f"{'rising' if rising else 'not all rising'}",
            "Keep them in order and apart.",
        )
    order = lsf_hz.shape[1]
    cosines = np.cos(lsf_hz * (2.0 * np.pi / SAMPLE_RATE_HZ))
    total, difference = _from_cosines(cosines[:, 0::2]), _from_cosines(cosines[:, 1::2])
    if order % 2 == 0:
        total, difference = _times(total, [1.0, 1.0]), _times(difference, [1.0, -1.0])
    else:
        difference = _times(difference, [1.0, 0.0, -1.0])
    return np.asarray(((total + difference) / 2.0)[:, : order + 1])


def _from_cosines(cosines: _Array) -> _Array:
    """Product of the factors 1 - 2 cos w z^-1 + z^-2 of every row."""
    found = np.ones((len(cosines), 1))
    for column in cosines.T:
        grown = np.pad(found, ((0, 0), (0, 2)))
        grown[:, 1:-1] -= 2.0 * column[:, None] * found
        grown[:, 2:] += found
        found = grown
    return found


def _times(polynomials: _Array, factor: list[float]) -> _Array:
    found = np.zeros((len(polynomials), polynomials.shape[1] + len(factor) - 1))
    for shift, value in enumerate(factor):
        found[:, shift : shift + polynomials.shape[1]] += value * polynomials
    return found
