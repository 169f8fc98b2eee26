"""Augmentation: off unless asked for, the same for the same seed, and never out of step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.types import FloatArray
from chorister.shared.voice.energy import frame_energy_db, speech_level_db
from chorister.shared.voice.features import log_mel
from chorister.simulations.augment import AugmentSettings, augment, heard_features

Speech = Callable[[float, int], FloatArray]
ALL = AugmentSettings(pitch_chance=1.0, formant_chance=1.0, noise_chance=1.0, microphone_chance=1.0)


def rng(*place: int) -> np.random.Generator:
    return np.random.default_rng([4, 0, 7, *place])


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_chance": 1.1},
        {"noise_snr_db": [30.0, 5.0]},
        {"room_t60_s": [0.5, 0.2]},
        {"room_t60_s": [0.0, 0.2]},
        {"largest_pitch": 0.9},
        {"nosie_chance": 0.5},
    ],
)
def test_values_out_of_range_and_unknown_keys_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadSettings):
        AugmentSettings.parse(wrong, "recipe.toml")


def test_nothing_happens_by_default(speech: Speech) -> None:
    samples = speech(0.5, 0)
    assert not AugmentSettings().active
    assert augment(samples, AugmentSettings(), rng()).tobytes() == samples.tobytes()


def test_the_same_place_hears_the_same_and_another_does_not(speech: Speech) -> None:
    samples = speech(0.8, 0)
    kept = samples.copy()
    first, again = (augment(samples, ALL, rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(samples, kept)
    assert not np.array_equal(first, augment(samples, ALL, rng(4)))


def test_one_kind_does_not_decide_over_another(speech: Speech) -> None:
    """With noise on or off, the drawn microphone is the same one."""
    samples = speech(0.8, 0)
    noisy = AugmentSettings(noise_chance=1.0, noise_snr_db=(60.0, 60.0), microphone_chance=1.0)
    clean = AugmentSettings(microphone_chance=1.0)
    gap = augment(samples, noisy, rng()) - augment(samples, clean, rng())
    assert np.sqrt(np.mean(gap**2)) < 0.01 * samples.std()


@pytest.mark.parametrize("length", [0, 1, 100, 5000, 25_600])
def test_length_and_range_stay(length: int, speech: Speech) -> None:
    loud = np.clip(40 * speech(1.6, 1), -1, 1)[:length]
    for place in range(3):
        heard = augment(loud, ALL, rng(place))
        assert heard.shape == (length,)
        assert heard.dtype == np.float32
        assert np.isfinite(heard).all()
        assert np.abs(heard).max(initial=0.0) <= 1.0


def test_what_is_said_stays_in_its_frames(speech: Speech) -> None:
    samples = speech(3.0, 2)
    settings = AugmentSettings(pitch_chance=1.0, formant_chance=1.0, microphone_chance=1.0)
    before = frame_energy_db(samples)
    for place in range(3):
        after = frame_energy_db(augment(samples, settings, rng(place)))
        assert np.corrcoef(before, after)[0, 1] > 0.9


def test_noise_comes_at_a_drawn_ratio(speech: Speech) -> None:
    samples = speech(1.6, 0)
    settings = AugmentSettings(noise_chance=1.0, noise_snr_db=(10.0, 20.0))
    ratios = []
    for place in range(12):
        noise = augment(samples, settings, rng(place)) - samples
        ratios.append(speech_level_db(samples) - 10 * np.log10(np.mean(noise**2)))
    assert min(ratios) > 9.5
    assert max(ratios) < 20.5
    assert max(ratios) - min(ratios) > 3


def test_a_chance_is_a_share(speech: Speech) -> None:
    samples = speech(0.1, 0)
    settings = AugmentSettings(noise_chance=0.3)
    changed = sum(
        not np.array_equal(augment(samples, settings, rng(place)), samples) for place in range(200)
    )
    assert 40 <= changed <= 80


def test_rooms_are_shared_by_examples(speech: Speech) -> None:
    pytest.importorskip("pyroomacoustics")
    samples = speech(0.5, 0)
    settings = AugmentSettings(room_chance=1.0, room_t60_s=(0.1, 0.12))
    heard = augment(samples, settings, rng(1))
    assert not np.array_equal(heard, samples)
    assert speech_level_db(heard) == pytest.approx(speech_level_db(samples), abs=4.0)
    np.testing.assert_array_equal(heard, augment(samples, settings, rng(1)))


def test_unchanged_examples_keep_their_features(speech: Speech) -> None:
    samples = speech(1.6, 0)
    mel, statistics = log_mel(samples), (np.zeros(80, np.float32), np.ones(80, np.float32))
    found, kept = heard_features(samples, mel, statistics, AugmentSettings(), rng())
    assert found is mel
    assert kept is statistics


@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_statistics_follow_the_channel_of_those_who_enrolled_in_it(
    speech: Speech, alike: float
) -> None:
    samples = speech(3.0, 1)
    mel = log_mel(samples)
    statistics = (mel.mean(axis=0), mel.std(axis=0))
    settings = AugmentSettings(microphone_chance=1.0, same_channel_chance=alike)
    heard, (mean, _) = heard_features(samples, mel, statistics, settings, rng(2))
    colour = (heard - mel)[mel.mean(axis=1) > -6].mean(axis=0)
    assert np.abs(colour).max() > 0.3
    if alike:
        assert np.abs(mean - statistics[0] - colour).max() < 0.15
    else:
        np.testing.assert_array_equal(mean, statistics[0])
