"""A speaker's profile: what it measures, its bytes, and what cannot be enrolled."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import Recording
from chorister.shared.voice.profile import MOST_SOUNDS, SpeakerProfile, profile_from, speech_frames


class LevelEncoder:
    """Names a voice by its mean level in each band: enough to tell recordings apart."""

    def embed(self, log_mel: np.ndarray) -> np.ndarray:
        vector = np.zeros(256, np.float32)
        vector[:80] = log_mel.mean(axis=0)
        return vector / np.linalg.norm(vector)


class BandListener:
    """Hears the two lowest bands."""

    def content_of(self, log_mel: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        return ((log_mel - mean) / std)[:, :2].astype(np.float32)


def voice(f0_hz: float, seconds: float, level: float = 0.1) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000.0
    wobble = f0_hz * (1.0 + 0.05 * np.sin(2 * np.pi * 3.0 * time))
    phase = 2.0 * np.pi * np.cumsum(wobble) / 16_000.0
    hiss = 1e-3 * np.random.default_rng(0).normal(size=len(time))
    sound = sum(np.sin(k * phase) / k for k in range(1, 10))
    return (level * (sound + hiss)).astype(np.float32)


def recordings(f0_hz: float = 120.0) -> list[Recording]:
    return [Recording(voice(f0_hz, 1.5), f"{index}") for index in range(2)]


def test_a_profile_measures_pitch_and_time() -> None:
    profile = profile_from(recordings(120.0), LevelEncoder(), BandListener())
    assert np.exp(profile.log_f0_median) == pytest.approx(120.0, rel=0.01)
    assert 0.02 < profile.log_f0_spread < 0.08
    assert profile.seconds == pytest.approx(3.0)
    assert np.linalg.norm(profile.vector) == pytest.approx(1.0, abs=1e-5)
    assert profile.mel_mean.shape == profile.mel_std.shape == (80,)


def test_the_table_says_what_its_frames_sound_like() -> None:
    profile = profile_from(recordings(), LevelEncoder(), BandListener())
    assert profile.sounds_log_mel.shape == (300, 80)
    heard = BandListener().content_of(profile.sounds_log_mel, profile.mel_mean, profile.mel_std)
    assert np.allclose(heard, profile.sounds_content, atol=1e-5)


def test_a_long_enrolment_keeps_frames_of_all_of_it() -> None:
    many = [Recording(voice(120.0, 15.0, 0.1 * (k + 1)), f"{k}") for k in range(2)]
    profile = profile_from(many, LevelEncoder(), BandListener())
    assert profile.sounds_log_mel.shape == (MOST_SOUNDS, 80)
    levels = np.sort(profile.sounds_log_mel.mean(axis=1))
    quiet, loud = np.split(levels, 2)
    assert np.median(loud) - np.median(quiet) == pytest.approx(np.log(2.0), abs=0.05)


def test_the_table_does_not_tell_in_which_order_it_was_said() -> None:
    one, two = recordings()
    turned = Recording(two.samples[::-1].copy(), "turned")
    there = profile_from([one, turned], LevelEncoder(), BandListener())
    back = profile_from([turned, one], LevelEncoder(), BandListener())
    assert np.allclose(there.sounds_log_mel, back.sounds_log_mel, atol=1e-4)


def test_pauses_do_not_count() -> None:
    plain = profile_from(recordings(), LevelEncoder(), BandListener())
    pause = np.zeros(16_000, np.float32)
    padded = [Recording(np.concatenate([pause, r.samples, pause]), r.name) for r in recordings()]
    paused = profile_from(padded, LevelEncoder(), BandListener())
    assert np.abs(paused.mel_mean - plain.mel_mean).max() < 0.3
    assert paused.log_f0_median == pytest.approx(plain.log_f0_median, abs=0.01)


def test_speech_frames_leave_out_the_quiet_ones() -> None:
    log_mel = np.full((100, 80), -3.0, np.float32)
    log_mel[60:] = -9.0
    assert len(speech_frames(log_mel)) == 60
    assert len(speech_frames(np.full((10, 80), -11.5, np.float32))) == 10


def test_bytes_round_trip() -> None:
    profile = profile_from(recordings(), LevelEncoder(), BandListener())
    again = SpeakerProfile.from_bytes(profile.to_bytes())
    for name in ("vector", "mel_mean", "mel_std"):
        assert np.array_equal(getattr(again, name), getattr(profile, name))
    assert again.log_f0_median == profile.log_f0_median
    assert again.log_f0_spread == profile.log_f0_spread
    assert again.seconds == profile.seconds


def test_damaged_bytes_are_refused() -> None:
    good = profile_from(recordings(), LevelEncoder(), BandListener()).to_bytes()
    for bad in (b"", good[:-1], b"x" * 64, save({"vector": np.zeros(256, np.float32)})):
        with pytest.raises(BadWeights):
            SpeakerProfile.from_bytes(bad)


def test_values_that_are_not_finite_are_refused() -> None:
    profile = profile_from(recordings(), LevelEncoder(), BandListener())
    profile.vector[3] = np.nan
    with pytest.raises(BadWeights):
        SpeakerProfile.from_bytes(profile.to_bytes())


def test_a_profile_does_not_print_itself() -> None:
    profile = profile_from(recordings(), LevelEncoder(), BandListener())
    assert repr(profile) == "SpeakerProfile(seconds=3.0)"


@pytest.mark.parametrize(
    "samples",
    [
        voice(120.0, 0.3),
        0.1 * np.random.default_rng(1).normal(size=48_000).astype(np.float32),
        np.zeros(48_000, np.float32),
    ],
    ids=["too short", "whispered", "silent"],
)
def test_what_cannot_be_enrolled_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(BadAudio):
        profile_from([Recording(samples, "bad")], LevelEncoder(), BandListener())
    with pytest.raises(BadAudio):
        profile_from([], LevelEncoder(), BandListener())
