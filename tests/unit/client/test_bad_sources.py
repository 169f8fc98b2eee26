"""Sources that are no ordinary speech: converted without a crash, a click or a change of level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client.consent import Permit
from chorister.client.convert import convert_file
from chorister.client.export import Origin, build_voice
from chorister.client.own_voice import read_own_recordings
from chorister.client.voice import Voice
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder

Speech = Callable[[float, int], FloatArray]

RATE = 16_000
SECONDS = 2.0


def whisper() -> FloatArray:
    """Nothing voiced: hiss that swells as syllables do."""
    rng = np.random.default_rng(0)
    t = np.arange(round(SECONDS * RATE)) / RATE
    return 0.05 * rng.normal(size=len(t)) * (1.1 + np.sin(2 * np.pi * 3 * t))


def music() -> FloatArray:
    """Three struck notes at once, and a beat."""
    rng = np.random.default_rng(0)
    t = np.arange(round(SECONDS * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (262, 330, 392)) * np.exp(-3 * (t % 0.5))
    return 0.05 * chord + 0.05 * rng.normal(size=len(t)) * np.exp(-40 * (t % 0.25))


def burst_in_silence() -> FloatArray:
    samples = np.zeros(round(SECONDS * RATE))
    samples[8000:12000] = 0.1 * np.random.default_rng(0).normal(size=4000)
    return samples


@pytest.fixture(scope="module")
def voice(voice_path: Path) -> Voice:
    return Voice(voice_path.read_bytes(), "v")


@pytest.mark.parametrize("make", [whisper, music, burst_in_silence])
def test_what_is_no_voiced_speech_is_converted_at_its_level(
    voice: Voice, tmp_path: Path, make: Callable[[], FloatArray]
) -> None:
    soundfile.write(tmp_path / "in.wav", make(), RATE)
    done = convert_file(voice, tmp_path / "in.wav", tmp_path / "out.wav")
    written, _ = soundfile.read(tmp_path / "out.wav")
    assert len(written) == SECONDS * RATE
    assert np.isfinite(written).all()
    assert np.abs(written).max() < 1.0
    # An untrained voice may be silent where the level is not known; it must not be louder.
    assert done.result_lufs < done.source_lufs + 1.0


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_any_rate_is_converted_to_the_same_length(
    voice: Voice, speech: Speech, tmp_path: Path, rate: int
) -> None:
    t = np.arange(round(SECONDS * rate)) / rate
    wave = np.interp(t, np.arange(round(SECONDS * RATE)) / RATE, speech(SECONDS, 1))
    soundfile.write(tmp_path / "in.flac", np.stack([wave, 0.5 * wave], 1) + 0.2, rate)
    done = convert_file(voice, tmp_path / "in.flac", tmp_path / "out.wav")
    assert done.seconds == pytest.approx(SECONDS, abs=0.01)
    assert done.result_lufs == pytest.approx(done.source_lufs, abs=1.0)
    written, _ = soundfile.read(tmp_path / "out.wav")
    assert abs(written.mean()) < 0.01


def test_mild_clipping_is_taken_and_the_result_does_not_clip(
    voice: Voice, speech: Speech, tmp_path: Path
) -> None:
    loud = np.clip(8.0 * speech(SECONDS, 1), -0.9, 0.9)
    share = float((np.abs(loud) >= 0.9).mean())
    assert 0.001 < share < 0.04
    soundfile.write(tmp_path / "in.wav", loud, RATE)
    convert_file(voice, tmp_path / "in.wav", tmp_path / "out.wav")
    written, _ = soundfile.read(tmp_path / "out.wav")
    assert np.abs(written).max() < 1.0


def test_a_fifth_of_a_second_is_refused(voice: Voice, speech: Speech, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", speech(0.2, 1), RATE)
    with pytest.raises(BadAudio, match=r"at least 0\.3"):
        convert_file(voice, tmp_path / "in.wav", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_a_reference_of_one_second_gives_a_voice(
    small_model: VoiceModel, speech: Speech, permits: Callable[[str], Permit], tmp_path: Path
) -> None:
    """Poor, but a voice; `personalise` asks for more, and says so."""
    profile = profile_from([Recording(speech(1.0, 3), "x")], load_speaker_encoder(), small_model)
    origin = Origin("a" * 64, "", "somebody")
    data = build_voice(small_model, profile, permits("conversion"), origin, now_s=1_800_000_000)
    soundfile.write(tmp_path / "in.wav", speech(SECONDS, 2), RATE)
    done = convert_file(Voice(data, "v"), tmp_path / "in.wav", tmp_path / "out.wav")
    assert done.result_lufs == pytest.approx(done.source_lufs, abs=1.0)
    soundfile.write(tmp_path / "me.wav", speech(1.0, 3), RATE)
    with pytest.raises(BadCorpus, match=r"1\.0 s"):
        read_own_recordings([tmp_path / "me.wav"])
