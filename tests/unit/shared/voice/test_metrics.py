"""Measures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chorister.shared.errors import BadAudio
from chorister.shared.voice import metrics


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(BadAudio, match="same, non-zero size"):
        metrics.log_spectral_distance_db(np.zeros((3, 80)), np.zeros((4, 80)))
    with pytest.raises(BadAudio, match="same, non-zero size"):
        metrics.voicing_error(np.zeros(0), np.zeros(0))


def test_lsd_of_a_constant_gain_is_that_gain() -> None:
    mel = np.random.default_rng(1).normal(size=(7, 80))
    assert metrics.log_spectral_distance_db(mel, mel) == 0.0
    assert metrics.log_spectral_distance_db(mel, mel + math.log(10.0)) == pytest.approx(20.0)


def test_lsd_is_a_mean_of_frame_roots() -> None:
    reference = np.zeros((2, 2))
    test = np.array([[math.log(10.0), -math.log(10.0)], [0.0, 0.0]])
    assert metrics.log_spectral_distance_db(reference, test) == pytest.approx(10.0)


@pytest.mark.parametrize("order", [1, 5, 24])
def test_mcd_of_one_cosine(order: int) -> None:
    ripple = 0.3 * np.cos(np.pi * order * (np.arange(80) + 0.5) / 80)
    mel = np.random.default_rng(2).normal(size=(5, 80))
    expected = 10.0 / math.log(10.0) * math.sqrt(2.0) * 0.3
    assert metrics.mel_cepstral_distortion_db(mel, mel + ripple) == pytest.approx(expected)


def test_mcd_ignores_level_and_high_orders() -> None:
    mel = np.random.default_rng(3).normal(size=(5, 80))
    fine = np.cos(np.pi * 25 * (np.arange(80) + 0.5) / 80)
    assert metrics.mel_cepstral_distortion_db(mel, mel + 2.0 + fine) == pytest.approx(0.0, abs=1e-9)


def test_f0_measures_use_the_frames_voiced_in_both() -> None:
    reference = np.array([100.0, 110.0, 120.0, 0.0, 130.0, 0.0])
    octave_up = np.array([200.0, 220.0, 240.0, 0.0, 0.0, 150.0])
    assert metrics.f0_correlation(reference, octave_up) == pytest.approx(1.0)
    assert metrics.f0_rmse_cents(reference, octave_up) == pytest.approx(1200.0)
    assert metrics.voicing_error(reference, octave_up) == pytest.approx(2 / 6)


def test_f0_measures_without_common_voicing_are_not_a_number() -> None:
    reference, test = np.array([100.0, 0.0, 0.0]), np.array([0.0, 100.0, 100.0])
    assert math.isnan(metrics.f0_correlation(reference, test))
    assert math.isnan(metrics.f0_rmse_cents(reference, test))
    constant = np.full(5, 100.0)
    assert math.isnan(metrics.f0_correlation(constant, constant))


def test_snr() -> None:
    signal = np.array([1.0, -1.0, 1.0, -1.0])
    assert metrics.snr_db(signal, 0.9 * signal) == pytest.approx(20.0)
    assert metrics.snr_db(signal, signal) == math.inf
    with pytest.raises(BadAudio, match="silence"):
        metrics.snr_db(np.zeros(4), signal)


def test_similarity_and_identification() -> None:
    vectors = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    centroids = np.array([[1.0, 0.0], [0.0, 1.0]])
    similarity = metrics.speaker_similarity(vectors, centroids)
    assert similarity == pytest.approx(np.array([[1, 0], [math.sqrt(0.5)] * 2, [0, 1]]))
    assert metrics.identification_rate(similarity, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_centroid_weighs_every_utterance_alike() -> None:
    centroid = metrics.voice_centroid(np.array([[100.0, 0.0], [0.0, 0.1]]))
    assert centroid == pytest.approx([math.sqrt(0.5)] * 2)


def test_equal_error_rate() -> None:
    assert metrics.equal_error_rate(np.array([0.8, 0.9]), np.array([0.1, 0.2])) == 0.0
    assert metrics.equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1.0
    same, different = np.array([0.9, 0.8, 0.7, 0.3]), np.array([0.1, 0.2, 0.4, 0.75])
    assert metrics.equal_error_rate(same, different) == pytest.approx(0.25)


def test_error_rate_counts_edits() -> None:
    assert metrics.error_rate(list("kitten"), list("sitting")) == pytest.approx(3 / 6)
    assert metrics.error_rate(["a"], []) == 1.0
    assert metrics.error_rate(["a"], ["a", "b", "c"]) == 2.0


def test_real_time_factor() -> None:
    assert metrics.real_time_factor(0.5, 10.0) == pytest.approx(0.05)


def test_bootstrap_weighs_speakers_not_utterances() -> None:
    found = metrics.bootstrap_over_speakers({"a": [1.0] * 99, "b": [0.0], "c": [float("nan")]})
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high, found.speakers) == (0.0, 1.0, 2)
    assert math.isnan(metrics.bootstrap_over_speakers({}).mean)


def test_bootstrap_interval_has_the_width_of_the_standard_error() -> None:
    draw = np.random.default_rng(5)
    values = {str(n): [float(v)] for n, v in enumerate(draw.normal(size=100))}
    found = metrics.bootstrap_over_speakers(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 / 10.0, rel=0.25)


def test_log_mel_distance_is_a_mean_of_magnitudes() -> None:
    reference = np.zeros((2, 2))
    test = np.array([[math.log(10.0), -math.log(10.0)], [0.0, 0.0]])
    assert metrics.log_mel_distance_db(reference, test) == pytest.approx(10.0)
    three = np.array([[math.log(10.0), 0.0], [0.0, 0.0]])
    assert metrics.log_mel_distance_db(reference, three) == pytest.approx(5.0)
    with pytest.raises(BadAudio, match="same, non-zero size"):
        metrics.log_mel_distance_db(reference, three[:1])


def test_rmse_is_in_units_of_full_scale() -> None:
    assert metrics.rmse(np.array([0.5, 0.0]), np.array([0.2, 0.4])) == pytest.approx(
        math.sqrt((0.09 + 0.16) / 2)
    )


def test_spectral_correlation_ignores_level_and_flat_frames() -> None:
    mel = np.random.default_rng(2).normal(size=(5, 80))
    assert metrics.spectral_correlation(mel, 3.0 * mel - 7.0) == pytest.approx(1.0)
    assert metrics.spectral_correlation(mel, -mel) == pytest.approx(-1.0)
    mel[0] = 1.0
    assert metrics.spectral_correlation(mel, mel) == pytest.approx(1.0)
    assert math.isnan(metrics.spectral_correlation(np.ones((3, 80)), np.ones((3, 80))))


@pytest.mark.parametrize(("low_is_worse", "mean"), [(True, 0.5), (False, 18.5)])
def test_the_worst_decile_is_of_utterances(low_is_worse: bool, mean: float) -> None:
    values = {"a": [float(v) for v in range(10)], "b": [float(v) for v in range(10, 20)]}
    found = metrics.worst_decile(values, low_is_worse=low_is_worse)
    assert (found.mean, found.speakers) == (mean, 2)
    # A resample of one speaker alone has another worst tenth.
    assert found.low < found.high


def test_the_worst_decile_is_at_least_one_value_and_nan_is_no_value() -> None:
    values = {"a": [3.0, float("nan")], "b": [1.0], "c": [float("nan")]}
    assert metrics.worst_decile(values, low_is_worse=True).mean == 1.0
    assert metrics.worst_decile(values, low_is_worse=True).speakers == 2
    assert math.isnan(metrics.worst_decile({}, low_is_worse=True).mean)
