"""The voice file against the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from chorister.client.consent import Permit
from chorister.client.export import Origin, build_voice, export_voice
from chorister.client.voice import SourceStatistics, Voice
from chorister.shared.errors import ConsentRefused, UsageError
from chorister.shared.types import FeatureSequence, FloatArray, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.hiss import hiss_at
from chorister.shared.voice.model import VoiceModel, move_pitch, single_batch
from chorister.shared.voice.profile import SpeakerProfile, profile_from

NOW_S = 1_800_000_000
RATE = 16_000
ORIGIN = Origin("a" * 64, "", "somebody")
REAL = Path(__file__).parents[4] / "shared" / "data" / "librispeech" / "test-clean"
Speech = Callable[[float, int], FloatArray]
Permits = Callable[[str], Permit]


class AnyVoice:
    """Names every voice alike: the tests here do not look at the source's vector."""

    def embed(self, log_mel: FloatArray) -> FloatArray:
        return np.full(256, 1 / 16, np.float32)


def adapted(
    model: VoiceModel,
    shared: adapters.SharedPlacement = "both",
    personal: adapters.PersonalPlacement = "all",
) -> VoiceModel:
    """The model with both adapters attached, and values in them that matter."""
    torch.manual_seed(5)
    adapters.attach_shared(model, adapters.SharedAdapterSpec(2, shared))
    adapters.attach_personal(model, adapters.PersonalAdapterSpec(4, personal))
    with torch.no_grad():
        model.decoder.directions.normal_()
        for p in adapters.shared_parameters(model) + adapters.personal_parameters(model):
            p.add_(0.1 * torch.randn_like(p))
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def adapted_pair(
    make_model: Callable[[], VoiceModel], target: SpeakerProfile, permits: Permits
) -> tuple[VoiceModel, Voice]:
    """A model with both adapters, and its voice file."""
    model = adapted(make_model())
    origin = Origin("a" * 64, "b" * 64, "somebody")
    return model, Voice(build_voice(model, target, permits("conversion"), origin, now_s=NOW_S), "v")


def by_torch(model: VoiceModel, samples: FloatArray, target: SpeakerProfile) -> FloatArray:
    recording = Recording(samples, "x")
    source = profile_from([recording], AnyVoice(), model)
    found = extract_features(recording)
    moved = FeatureSequence(found.log_mel, move_pitch(found.f0_hz, source, target))
    hiss = torch.from_numpy(hiss_at(0, len(samples)))[None]
    with torch.inference_mode():
        return model.speak(single_batch(moved, source, target), hiss)[0].numpy()


def snr_db(wanted: FloatArray, found: FloatArray) -> float:
    noise = np.square(wanted - found, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / max(noise, 1e-30)))


@pytest.mark.parametrize("purpose", ["training", "conversion"])
def test_a_plain_file_needs_a_permit_for_it(
    purpose: str, permits: Permits, small_model: VoiceModel, target: SpeakerProfile, tmp_path: Path
) -> None:
    path = tmp_path / "voice.onnx"
    with pytest.raises(ConsentRefused, match="plain_export"):
        export_voice(small_model, target, permits(purpose), ORIGIN, path, now_s=NOW_S)
    assert list(tmp_path.iterdir()) == []


def test_an_ended_permit_exports_nothing(
    permits: Permits, small_model: VoiceModel, target: SpeakerProfile
) -> None:
    with pytest.raises(ConsentRefused, match="has not ended"):
        build_voice(small_model, target, permits("conversion"), ORIGIN, now_s=NOW_S + 3600)


def test_a_missing_folder_is_said(
    permits: Permits, small_model: VoiceModel, target: SpeakerProfile, tmp_path: Path
) -> None:
    path = tmp_path / "none" / "voice.onnx"
    with pytest.raises(UsageError, match="writable"):
        export_voice(small_model, target, permits("plain_export"), ORIGIN, path, now_s=NOW_S)


def test_it_speaks_as_the_model_does_with_both_adapters(
    adapted_pair: tuple[VoiceModel, Voice],
    small_model: VoiceModel,
    target: SpeakerProfile,
    speech: Speech,
) -> None:
    model, voice = adapted_pair
    samples = speech(4.0, 1)
    wanted = by_torch(model, samples, target)
    assert snr_db(wanted, voice.run(samples).samples) > 50
    assert snr_db(wanted, by_torch(small_model, samples, target)) < 20, "the adapters do nothing"


def test_a_deep_voice_begins_as_early_as_the_models(
    small_model: VoiceModel, target: SpeakerProfile, permits: Permits, speech: Speech
) -> None:
    deep = replace(target, log_f0_median=float(np.log(100.0)))
    voice = Voice(build_voice(small_model, deep, permits("conversion"), ORIGIN, now_s=NOW_S), "v")
    samples = speech(3.0, 1)
    assert snr_db(by_torch(small_model, samples, deep), voice.run(samples).samples) > 50


def test_a_source_with_half_the_targets_timbre_is_half_foreign(
    small_model: VoiceModel, target: SpeakerProfile, permits: Permits, speech: Speech
) -> None:
    samples = speech(3.0, 1)
    own = profile_from([Recording(samples, "x")], AnyVoice(), small_model).mel_mean
    tilt = np.linspace(-1.0, 1.0, 80, dtype=np.float32) * np.float32(np.sqrt(3.0))
    for apart in (0.0, 0.275, 0.5):
        near = replace(target, mel_mean=own + apart * tilt)
        data = build_voice(small_model, near, permits("conversion"), ORIGIN, now_s=NOW_S)
        spoken = Voice(data, "v").run(samples).samples
        assert snr_db(by_torch(small_model, samples, near), spoken) > 50


@pytest.mark.parametrize("personal", ["all", "early", "late", "none"])
@pytest.mark.parametrize("shared", ["harmonic", "noise"])
def test_adapters_speak_wherever_they_are_placed(
    make_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    permits: Permits,
    speech: Speech,
    personal: adapters.PersonalPlacement,
    shared: adapters.SharedPlacement,
) -> None:
    model = adapted(make_model(), shared, personal)
    origin = Origin("a" * 64, "b" * 64, "somebody")
    voice = Voice(build_voice(model, target, permits("conversion"), origin, now_s=NOW_S), "v")
    samples = speech(2.0, 1)
    assert snr_db(by_torch(model, samples, target), voice.run(samples).samples) > 50
    assert f"placement {shared}" in voice.card.shared_adapter
    size = adapters.PersonalAdapterSpec(4, personal).size(
        model.settings.decoder_width, model.settings.decoder_blocks
    )
    assert voice.card.personal_adapter.endswith(f"{size} values")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data")
def test_it_speaks_as_the_model_does_on_real_speech(
    adapted_pair: tuple[VoiceModel, Voice], target: SpeakerProfile
) -> None:
    model, voice = adapted_pair
    files = [path for path in sorted(REAL.rglob("*")) if path.suffix in (".ogg", ".opus")]
    for path in files[:: len(files) // 3]:
        samples, _ = soundfile.read(path, dtype="float32")
        samples = samples[: len(samples) // 160 * 160]
        assert snr_db(by_torch(model, samples, target), voice.run(samples).samples) > 50, path


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was(
    permits: Permits, small_model: VoiceModel, target: SpeakerProfile
) -> None:
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    permit = permits("conversion")
    first = build_voice(small_model, target, permit, ORIGIN, now_s=NOW_S)
    assert build_voice(small_model, target, permit, ORIGIN, now_s=NOW_S) == first
    assert all(torch.equal(before[n], value) for n, value in small_model.state_dict().items())
    assert not small_model.vocoder.as_products


def test_its_metadata_say_where_it_comes_from(
    adapted_pair: tuple[VoiceModel, Voice], permits: Permits, voice_path: Path
) -> None:
    card = adapted_pair[1].card
    assert (card.base_sha256, card.shared_adapter_sha256) == ("a" * 64, "b" * 64)
    assert (card.target, card.purpose) == ("somebody", "conversion")
    assert card.consent_sha256 == permits("conversion").consent_sha256
    assert len(card.personal_adapter_sha256) == 64
    plain = Voice(voice_path.read_bytes(), "v").card
    assert (plain.personal_adapter_sha256, plain.purpose) == ("", "plain_export")


def test_onnxruntime_alone_turns_a_wav_into_a_wav(voice_path: Path, speech: Speech) -> None:
    session = onnxruntime.InferenceSession(voice_path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["wav"]
    samples = speech(1.0, 2)
    (converted,) = session.run(["converted"], {"wav": samples[None]})
    assert converted.shape == (1, len(samples))
    assert np.isfinite(converted).all()
    assert np.abs(converted).max() > 1e-4


@pytest.mark.parametrize("count", [1, 159, 160, 161, 320, 4001])
def test_any_length_comes_back_as_long(voice_path: Path, speech: Speech, count: int) -> None:
    voice = Voice(voice_path.read_bytes(), "v")
    converted = voice.run(speech(1.0, 0)[:count])
    assert converted.samples.shape == (count,)
    assert np.isfinite(converted.samples).all()


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e-30])
def test_a_constant_is_converted_to_finite_samples(voice_path: Path, fill: float) -> None:
    made = Voice(voice_path.read_bytes(), "v").run(np.full(8000, fill, np.float32))
    assert np.isfinite(made.samples).all()
    assert not made.f0_hz.any()


def test_statistics_that_are_given_are_used(voice_path: Path, speech: Speech) -> None:
    voice = Voice(voice_path.read_bytes(), "v")
    samples = speech(2.0, 3)
    free = voice.run(samples)
    own = free.statistics
    np.testing.assert_array_equal(voice.run(samples, own).samples, free.samples)
    other = SourceStatistics(own.mel_mean + 1, own.mel_std, own.log_f0 + np.array([0.3, 0]))
    changed = voice.run(samples, other)
    assert snr_db(free.samples, changed.samples) < 30
    voiced = (free.f0_hz > 0) & (changed.f0_hz > 60)
    lower = np.log(changed.f0_hz[voiced] / free.f0_hz[voiced])
    assert np.all(lower < -0.1)
