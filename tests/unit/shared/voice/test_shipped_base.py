"""The weights in the package: they load, they are small, and they convert real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.types import Recording
from chorister.shared.voice.base import BASE_WEIGHTS, load_base
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import SpeakerEncoder, load_speaker_encoder

DATA = Path(__file__).parents[5] / "shared" / "data" / "librispeech" / "test-clean"
# The two speakers that the training only watched.
HELD_OUT = ("1221", "4077")
needs_speech = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")


@pytest.fixture(scope="module")
def model() -> VoiceModel:
    return load_base()


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return load_speaker_encoder()


@pytest.fixture(scope="module")
def speech() -> dict[str, list[Recording]]:
    found = {}
    for speaker in HELD_OUT:
        paths = sorted((DATA / speaker).rglob("*.opus"))[:5]
        read = [soundfile.read(path, dtype="float32", frames=16_000 * 6)[0] for path in paths]
        found[speaker] = [Recording(samples, speaker) for samples in read]
    return found


@pytest.fixture(scope="module")
def profiles(
    speech: dict[str, list[Recording]], encoder: SpeakerEncoder
) -> dict[str, SpeakerProfile]:
    return {
        speaker: profile_from(speech[speaker][:4], encoder, load_base()) for speaker in HELD_OUT
    }


def test_the_shipped_weights_are_pinned_and_small(model: VoiceModel) -> None:
    assert BASE_WEIGHTS.stat().st_size < 14_000_000
    assert not model.training
    assert model.decoder.directions.abs().max() > 0
    assert model.decoder.condition.spread.min() > 0


@needs_speech
def test_conversion_moves_towards_the_target_and_keeps_the_words_in_place(
    model: VoiceModel,
    encoder: SpeakerEncoder,
    speech: dict[str, list[Recording]],
    profiles: dict[str, SpeakerProfile],
) -> None:
    for source, target in (HELD_OUT, HELD_OUT[::-1]):
        features = extract_features(speech[source][4])
        samples = model.convert(features, profiles[source], profiles[target])
        converted = extract_features(Recording(samples, "converted"))
        before, after = encoder.embed(features.log_mel), encoder.embed(converted.log_mel)
        assert after @ profiles[target].vector > before @ profiles[target].vector + 0.1
        assert after @ profiles[source].vector < before @ profiles[source].vector - 0.1
        voiced = converted.f0_hz[converted.f0_hz > 0]
        assert abs(np.median(np.log(voiced)) - profiles[target].log_f0_median) < 0.25
        levels = np.corrcoef(features.log_mel.mean(axis=1), converted.log_mel.mean(axis=1))
        assert levels[0, 1] > 0.9


@needs_speech
def test_the_own_voice_comes_back(
    model: VoiceModel, speech: dict[str, list[Recording]], profiles: dict[str, SpeakerProfile]
) -> None:
    """Its spectrum, not its level: that follows the enrolment, and callers match loudness."""
    for speaker in HELD_OUT:
        recording = speech[speaker][4]
        features = extract_features(recording)
        samples = model.convert(features, profiles[speaker], profiles[speaker])
        copied = extract_features(Recording(samples, "copy"))
        agreement = np.corrcoef(features.log_mel.ravel(), copied.log_mel.ravel())
        assert agreement[0, 1] > 0.9
        assert np.abs(samples).max() < 1.0
        assert ((features.f0_hz > 0) == (copied.f0_hz > 0)).mean() > 0.9
