"""Measures of converted speech, each by its published formula, in plain numpy.

The distances compare sequences frame by frame (no time warping): they suit copies and conversions,
which keep the source's timing. Shape letters: F frames, K bands or bins, D vector size, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio
from chorister.shared.types import FloatArray
from chorister.shared.voice.mfcc import mel_cepstrum

DB_PER_NEPER = 20.0 / np.log(10.0)
MCD_COEFFICIENTS = 24

Values = NDArray[np.float64] | FloatArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval.

    Attributes:
        mean: mean over speakers of each speaker's mean.
        low: 2.5 % quantile of the bootstrap means.
        high: 97.5 % quantile.
        speakers: how many speakers it is over.
    """

    mean: float
    low: float
    high: float
    speakers: int


def _same_shape(reference: Values, test: Values) -> None:
    if reference.shape != test.shape or reference.size == 0:
        raise BadAudio(
            "A measure needs two sequences of the same, non-zero size.",
            f"{reference.shape} and {test.shape}",
            "Cut both to the same frames.",
        )


def unit_rows(vectors: Values) -> NDArray[np.float64]:
    """Scale vectors to unit length.

    Args:
        vectors: shape (..., D), no row all zero.

    Returns:
        the same shape, float64.
    """
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True))


def voice_centroid(vectors: Values) -> NDArray[np.float64]:
    """Normalised mean of unit speaker vectors: what a voice is compared with.

    Args:
        vectors: shape (N, D), N at least 1.

    Returns:
        shape (D,), unit norm.
    """
    return unit_rows(unit_rows(vectors).mean(0))


def speaker_similarity(vectors: Values, centroids: Values) -> NDArray[np.float64]:
    """Cosine of each speaker vector with each centroid, in [-1, 1].

    Args:
        vectors: shape (N, D).
        centroids: shape (M, D).

    Returns:
        shape (N, M).
    """
    return np.asarray(unit_rows(vectors) @ unit_rows(centroids).T)


def identification_rate(similarity: Values, targets: NDArray[np.int64]) -> float:
    """Share of utterances whose own target is the most similar of all M voices.

    Args:
        similarity: shape (N, M), as `speaker_similarity` gives it.
        targets: shape (N,), the right column of each row.

    Returns:
        between 0 and 1; a tie counts for the first column.
    """
    return float(np.mean(similarity.argmax(1) == targets))


def equal_error_rate(same: Values, different: Values) -> float:
    """Error rate at the threshold where false acceptances equal false rejections.

    Args:
        same: scores of trials of one speaker, at least 1.
        different: scores of trials of two speakers, at least 1.

    Returns:
        between 0 and 1, the mean of the two rates at the threshold where they are closest.
    """
    thresholds = np.unique(np.concatenate((same, different)))
    rejected = np.searchsorted(np.sort(same), thresholds, "left") / len(same)
    accepted = 1.0 - np.searchsorted(np.sort(different), thresholds, "left") / len(different)
    best = int(np.abs(rejected - accepted).argmin())
    return float((rejected[best] + accepted[best]) / 2.0)


def log_spectral_distance_db(reference: Values, test: Values) -> float:
    """Mean over frames of the root mean square difference of log spectra (Gray and Markel 1976).

    Args:
        reference: shape (F, K), natural logarithm of magnitudes.
        test: the same shape.

    Returns:
        decibels, 0 for equal spectra.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference, test)
    gap = np.asarray(reference, np.float64) - test
    return float(DB_PER_NEPER * np.sqrt((gap**2).mean(1)).mean())


def log_mel_distance_db(reference: Values, test: Values) -> float:
    """Mean absolute difference of log-mels over all frames and bands.

    Args:
        reference: shape (F, K), natural logarithm of magnitudes.
        test: the same shape.

    Returns:
        decibels, 0 for equal spectra.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference, test)
    gap = np.asarray(reference, np.float64) - test
    return float(DB_PER_NEPER * np.abs(gap).mean())


def mel_cepstral_distortion_db(reference: Values, test: Values) -> float:
    """Mean over frames of 10 / ln 10 * sqrt(2 * sum over 24 of squared differences (Kubichek 1993).

    Args:
        reference: shape (F, K), log-mel, natural logarithm of magnitudes.
        test: the same shape.

    Returns:
        decibels; the level (c0) is left out.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference, test)
    gap = mel_cepstrum(reference, MCD_COEFFICIENTS) - mel_cepstrum(test, MCD_COEFFICIENTS)
    return float(10.0 / np.log(10.0) * np.sqrt(2.0 * (gap**2).sum(1)).mean())


def f0_correlation(reference_hz: Values, test_hz: Values) -> float:
    """Pearson correlation of log F0 over the frames that are voiced in both.

    Args:
        reference_hz: shape (F,), 0 where unvoiced.
        test_hz: the same shape.

    Returns:
        in [-1, 1]; NaN when fewer than 3 frames are voiced in both or one is constant.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference_hz, test_hz)
    both = (reference_hz > 0) & (test_hz > 0)
    if both.sum() < 3:
        return float("nan")
    a, b = np.log(reference_hz[both], dtype=np.float64), np.log(test_hz[both], dtype=np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 1e-9 else float("nan")


def f0_rmse_cents(reference_hz: Values, test_hz: Values) -> float:
    """Root mean square F0 difference over the frames that are voiced in both.

    Args:
        reference_hz: shape (F,), 0 where unvoiced.
        test_hz: the same shape.

    Returns:
        cents (1200 to the octave); NaN when no frame is voiced in both.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference_hz, test_hz)
    both = (reference_hz > 0) & (test_hz > 0)
    if not both.any():
        return float("nan")
    ratio = np.asarray(test_hz[both], np.float64) / reference_hz[both]
    return float(np.sqrt(np.mean((1200.0 * np.log2(ratio)) ** 2)))


def voicing_error(reference_hz: Values, test_hz: Values) -> float:
    """Share of frames that are voiced in one sequence and unvoiced in the other.

    Args:
        reference_hz: shape (F,), 0 where unvoiced.
        test_hz: the same shape.

    Returns:
        between 0 and 1.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference_hz, test_hz)
    return float(np.mean((reference_hz > 0) != (test_hz > 0)))


def snr_db(reference: Values, test: Values) -> float:
    """Signal-to-noise ratio, the noise being what differs: 10 log10(sum r^2 / sum (r - t)^2).

    Args:
        reference: shape (T,), not all zero.
        test: the same shape.

    Returns:
        decibels; infinite for equal signals.

    Raises:
        BadAudio: the shapes differ or are empty, or the reference is silent.
    """
    _same_shape(reference, test)
    signal = float((np.asarray(reference, np.float64) ** 2).sum())
    noise = float(((np.asarray(reference, np.float64) - test) ** 2).sum())
    if signal == 0.0:
        raise BadAudio("A reference must hold a signal.", "silence", "Use another recording.")
    return float("inf") if noise == 0.0 else float(10.0 * np.log10(signal / noise))


def rmse(reference: Values, test: Values) -> float:
    """Root mean square of the difference of two waveforms.

    Args:
        reference: shape (T,).
        test: the same shape.

    Returns:
        in units of full scale, 0 for equal signals.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference, test)
    return float(np.sqrt(np.mean((np.asarray(reference, np.float64) - test) ** 2)))


def spectral_correlation(reference: Values, test: Values) -> float:
    """Mean over frames of the Pearson correlation of log spectra across bands.

    Args:
        reference: shape (F, K), logarithm of magnitudes.
        test: the same shape.

    Returns:
        in [-1, 1], whatever the level; NaN where every frame is flat.

    Raises:
        BadAudio: the shapes differ or are empty.
    """
    _same_shape(reference, test)
    a = np.asarray(reference, np.float64) - reference.mean(1, keepdims=True)
    b = np.asarray(test, np.float64) - test.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    told = scale > 1e-9
    if not told.any():
        return float("nan")
    return float(((a * b).sum(1)[told] / scale[told]).mean())


def real_time_factor(computed_s: float, duration_s: float) -> float:
    """Computing time over the duration of the speech; below 1 is faster than real time.

    Args:
        computed_s: seconds of wall-clock time, at least 0.
        duration_s: seconds of speech, above 0.
    """
    return computed_s / duration_s


def error_rate(reference: list[str], test: list[str]) -> float:
    """Insertions, deletions and substitutions over the reference's length (PER, WER).

    Args:
        reference: phones or words, at least 1.
        test: phones or words.

    Returns:
        0 or above; above 1 where much is inserted.
    """
    row = np.arange(len(test) + 1)
    for i, wanted in enumerate(reference, 1):
        before, row = row, np.full(len(test) + 1, i)
        for j, found in enumerate(test, 1):
            row[j] = min(before[j - 1] + (wanted != found), before[j] + 1, row[j - 1] + 1)
    return float(row[-1] / len(reference))


def bootstrap_over_speakers(
    values: dict[str, list[float]], draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean and 95 % interval, resampling whole speakers (utterances of one are not independent).

    Args:
        values: each speaker's values; NaN values are left out.
        draws: bootstrap samples.
        seed: of the resampling, so that a report prints the same twice.

    Returns:
        the interval; all NaN where no value is left.
    """
    means = np.array([np.nanmean(v) for v in values.values() if not np.all(np.isnan(v))])
    if not len(means):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    chosen = np.random.default_rng(seed).integers(len(means), size=(draws, len(means)))
    low, high = np.quantile(means[chosen].mean(1), (0.025, 0.975))
    return Interval(float(means.mean()), float(low), float(high), len(means))


def worst_decile(
    values: dict[str, list[float]], *, low_is_worse: bool, draws: int = 500, seed: int = 0
) -> Interval:
    """Mean of the worst tenth of all values (at least one), resampling whole speakers.

    Args:
        values: each speaker's values; NaN values are left out.
        low_is_worse: which end is the bad one.
        draws: bootstrap samples.
        seed: of the resampling.

    Returns:
        the interval; all NaN where no value is left.
    """
    sign = 1.0 if low_is_worse else -1.0
    groups = [sign * np.array([v for v in group if not np.isnan(v)]) for group in values.values()]
    groups = [group for group in groups if len(group)]
    if not groups:
        return Interval(float("nan"), float("nan"), float("nan"), 0)

    def lowest(chosen: list[NDArray[np.float64]]) -> float:
        together = np.sort(np.concatenate(chosen))
        return float(together[: max(1, len(together) // 10)].mean())

    draw = np.random.default_rng(seed)
    picks = draw.integers(len(groups), size=(draws, len(groups)))
    found = [sign * lowest([groups[i] for i in pick]) for pick in picks]
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(sign * lowest(groups), float(low), float(high), len(groups))
