"""Segments that keep to themselves, and an enrolment set that may be cleaned."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.client.prepare import (
    GUARD_SAMPLES,
    clean_enrolment,
    enrolment_gain,
    level_by,
    segments,
)
from chorister.shared.errors import BadAudio
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.loudness import loudness_lufs

RATE = 16_000
LENGTH = 20_480


def noise(seconds: float, level: float = 0.05, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("segment_s", [0.0, 0.59, 10.1, -1.0, float("nan")])
def test_a_length_out_of_range_is_refused(segment_s: float) -> None:
    with pytest.raises(BadAudio, match=r"0\.6 to 10 s"):
        segments([Recording(noise(3), "a")], segment_s=segment_s)


@pytest.mark.parametrize("gain", [0.0, -1.0, float("inf"), float("nan")])
def test_a_gain_out_of_range_is_refused(gain: float) -> None:
    with pytest.raises(BadAudio, match="gain"):
        segments([Recording(noise(3), "a")], gain=gain)


@pytest.mark.parametrize(
    ("samples", "count"),
    [
        (0, 0),
        (9_599, 0),
        (9_600, 1),
        (LENGTH - 1, 1),
        (LENGTH, 1),
        (2 * LENGTH + GUARD_SAMPLES - 1, 1),
        (2 * LENGTH + GUARD_SAMPLES, 2),
        (10 * (LENGTH + GUARD_SAMPLES), 10),
    ],
)
def test_the_count_follows_from_the_sample_count(samples: int, count: int) -> None:
    found = segments([Recording(noise(60)[:samples], "a")])
    assert len(found) == count
    assert all(len(segment.samples) == LENGTH for segment in found)


def test_places_names_and_order() -> None:
    first, second = Recording(noise(3, seed=1), "a"), Recording(noise(2, seed=2), "b")
    found = segments([first, second])
    assert [segment.name for segment in found] == ["a#0", "a#1", "b#0"]
    start = LENGTH + GUARD_SAMPLES
    own = first.samples[start : start + LENGTH].astype(np.float64)
    np.testing.assert_array_equal(found[1].samples, (own - own.mean()).astype(np.float32))


@pytest.mark.parametrize(("segment_s", "samples"), [(1.284, 20_480), (2.0, 32_000), (1.6, 25_600)])
def test_lengths_are_whole_frames(segment_s: float, samples: int) -> None:
    (segment,) = segments([Recording(noise(2.5), "a")], segment_s=segment_s)
    assert len(segment.samples) == samples


def test_a_short_recording_gives_one_padded_segment() -> None:
    recording = Recording(noise(0.9), "a")
    (segment,) = segments([recording])
    np.testing.assert_array_equal(segment.samples[14_400:], 0.0)
    assert np.std(segment.samples[:14_400]) == pytest.approx(0.05, rel=0.05)


def test_a_silent_segment_is_dropped_and_the_others_keep_their_place() -> None:
    samples = noise(4.5)
    start = LENGTH + GUARD_SAMPLES
    samples[start : start + LENGTH] *= 0.01
    assert [s.name for s in segments([Recording(samples, "a")])] == ["a#0", "a#2"]


def test_the_offset_of_a_quiet_segment_is_not_speech() -> None:
    assert segments([Recording(0.3 + noise(2, 1e-4), "a")]) == ()


def test_silence_is_judged_after_the_stored_gain_and_not_against_neighbours() -> None:
    quiet, loud = noise(1.28, 0.001), noise(1.4, 0.3)
    assert segments([Recording(quiet, "a")]) == ()
    assert len(segments([Recording(quiet, "a")], gain=8.0)) == 1
    beside = np.concatenate([quiet, loud])
    assert segments([Recording(beside, "a")], gain=8.0)[0].name == "a#0"


def test_what_was_taken_off_the_whole_file_does_not_matter() -> None:
    samples = noise(4)
    for before, after in zip(
        segments([Recording(samples, "a")]),
        segments([Recording(samples + np.float32(0.125), "a")]),
        strict=True,
    ):
        np.testing.assert_allclose(before.samples, after.samples, atol=1e-7)


def test_the_gain_brings_enrolment_to_one_level() -> None:
    recordings = [Recording(noise(2, level, seed), "a") for seed, level in enumerate((0.02, 0.03))]
    gain = enrolment_gain(recordings)
    levelled = [loudness_lufs(level_by(recording, gain).samples) for recording in recordings]
    assert np.median(levelled) == pytest.approx(-27.0, abs=0.05)
    assert levelled[1] - levelled[0] == pytest.approx(3.5, abs=0.3)


@pytest.mark.parametrize(("level", "gain"), [(1e-3, 10.0), (0.9, None)])
def test_the_gain_is_bounded(level: float, gain: float | None) -> None:
    found = enrolment_gain([Recording(noise(2, level), "a")])
    assert found == pytest.approx(gain) if gain else found >= 0.1


@pytest.mark.parametrize("recordings", [[], [Recording(np.zeros(RATE, np.float32), "a")]])
def test_a_silent_enrolment_is_refused(recordings: list[Recording]) -> None:
    with pytest.raises(BadAudio, match="none audible"):
        enrolment_gain(recordings)


def test_cleaning_lowers_the_noise_and_keeps_the_voice() -> None:
    t = np.arange(3 * RATE) / RATE
    speech = (0.2 * np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 2 * t) > 0)).astype("f4")
    noisy = speech + noise(3, 0.01)
    cleaned = clean_enrolment(Recording(noisy, "a"), trim=False).samples
    assert len(cleaned) == len(noisy) and cleaned.dtype == np.float32
    silent = speech == 0
    silent[:200] = silent[-200:] = False
    assert np.std(cleaned[silent]) < 0.5 * np.std(noisy[silent])
    voiced = np.abs(speech) > 0.05
    assert np.corrcoef(cleaned[voiced], speech[voiced])[0, 1] > 0.995


def test_trimming_leaves_a_margin() -> None:
    samples = np.concatenate([noise(1, 1e-4), noise(1), noise(2, 1e-4)])
    trimmed = clean_enrolment(Recording(samples, "a"), denoise=False)
    assert trimmed.duration_s == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize("length", [1, 100, 319, 700])
def test_cleaning_survives_very_short_and_silent_input(length: int) -> None:
    for samples in (np.zeros(length, np.float32), noise(1)[:length]):
        assert np.isfinite(clean_enrolment(Recording(samples, "a")).samples).all()
