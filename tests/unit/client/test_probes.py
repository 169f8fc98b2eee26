"""What a personal voice is tried on: damaged files first, then that what is shipped fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chorister.client import probes
from chorister.client.personal_judge import say_probe
from chorister.client.probes import (
    PROBES_FILE,
    PROBES_FORMAT,
    encoder_sha256,
    probe_of,
    probes_of,
    shipped_probes,
    spoken_frames,
)
from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.base import BASE_WEIGHTS, load_base
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.stream_weights import load_stream

Speech = Callable[[float, int], FloatArray]
SHIPPED = BASE_WEIGHTS.with_name(PROBES_FILE)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    model = load_base()
    with pytest.raises(BadWeights, match="absent"):
        shipped_probes(model, tmp_path / "absent.safetensors")
    for number, data in enumerate((b"", b"nonsense" * 20, SHIPPED.read_bytes()[:-1000])):
        (tmp_path / f"{number}.safetensors").write_bytes(data)
        with pytest.raises(BadWeights, match="unusable"):
            shipped_probes(model, tmp_path / f"{number}.safetensors")


@pytest.mark.parametrize(
    "told", [{}, {PROBES_FORMAT: "no json"}, {PROBES_FORMAT: "{}"}, {PROBES_FORMAT: "[]"}]
)
def test_a_file_that_says_something_else_is_refused(told: dict[str, str], tmp_path: Path) -> None:
    save_file(load_file(SHIPPED), tmp_path / "p.safetensors", told)
    with pytest.raises(BadWeights, match="unusable"):
        shipped_probes(load_base(), tmp_path / "p.safetensors")


def test_altered_probes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    altered = bytearray(SHIPPED.read_bytes())
    altered[-1] ^= 1
    (tmp_path / PROBES_FILE).write_bytes(altered)
    assert shipped_probes(load_base(), tmp_path / PROBES_FILE)  # readable, but not the shipped ones
    monkeypatch.setattr(probes, "BASE_WEIGHTS", tmp_path / "base.safetensors")
    with pytest.raises(BadWeights, match="with digest"):
        shipped_probes(load_base())


def test_another_content_encoder_has_no_probes(small_model: VoiceModel) -> None:
    assert shipped_probes(small_model) == ()


@pytest.mark.parametrize("load", [load_base, load_stream])
def test_the_shipped_probes_are_of_the_shipped_encoders(load: Callable[[], VoiceModel]) -> None:
    """Where this fails, a new model was shipped without chorister.simulations.judge_probes."""
    found = shipped_probes(load())
    assert len(found) == 12
    for probe in found:
        assert probe.content.shape == (300, load().settings.content)
        assert probe.f0_hz.shape == probe.spoken.shape == (300,)
        # The encoder normalises every frame.
        np.testing.assert_allclose(probe.content.std(axis=1), 1.0, atol=0.05)
        assert 0.2 < (probe.f0_hz > 0).mean() < 0.9
        assert 60.0 < np.exp(probe.log_f0_median) < 400.0
        assert len(probe.phones) > 10
    assert SHIPPED.stat().st_size < 500_000


def test_the_digest_is_of_the_encoder_alone(make_model: Callable[[], VoiceModel]) -> None:
    model, other = make_model(), make_model()
    other.decoder.leave.weight.data.add_(1.0)
    assert encoder_sha256(model) == encoder_sha256(other)
    next(iter(other.encoder.parameters())).data.add_(1e-3)
    assert encoder_sha256(model) != encoder_sha256(other)


def test_a_shipped_probe_is_spoken_in_the_targets_range(target: SpeakerProfile) -> None:
    model = load_base()
    probe = shipped_probes(model)[0]
    sounds = np.random.default_rng(1).standard_normal((50, model.settings.content))
    heard = []
    for median_hz in (100.0, 200.0):
        own = replace(
            target,
            log_f0_median=float(np.log(median_hz)),
            sounds_content=sounds.astype(np.float32),
            sounds_log_mel=np.full((50, 80), -5.0, np.float32),
        )
        speech = say_probe(model, probe, own)
        assert speech.shape == (300 * 160,)
        assert np.isfinite(speech).all()
        assert np.array_equal(speech, say_probe(model, probe, own))
        spoken_hz = estimate_f0(speech)
        heard.append(np.median(spoken_hz[spoken_hz > 0]))
    assert heard[1] > 1.3 * heard[0]


def test_speech_at_hand_is_heard_for_four_seconds_and_pauses_are_known(
    small_model: VoiceModel, speech: Speech
) -> None:
    samples = np.concatenate([speech(3.0, 1), np.zeros(16_000, np.float32), speech(3.0, 2)])
    probe = probe_of(Recording(samples, "x"), small_model, None)
    assert probe.content.shape == (400, small_model.settings.content)
    assert probe.phones == ()
    assert not probe.spoken[310:390].any()
    assert probe.spoken[:300].mean() > 0.5


def test_what_holds_no_speech_is_left_out(small_model: VoiceModel, speech: Speech) -> None:
    silent = Recording(np.zeros(16_000, np.float32), "silent")
    with pytest.raises(BadAudio, match="silent"):
        probe_of(silent, small_model, None)
    found = probes_of([silent, Recording(speech(2.0, 3), "x")], small_model, None)
    assert len(found) == 1
    assert probes_of([silent], small_model, None) == ()


def test_the_file_says_where_it_is_from() -> None:
    from safetensors import safe_open

    with safe_open(SHIPPED, "np") as file:
        told = json.loads(file.metadata()[PROBES_FORMAT])
    assert len(told["from"]) == len(told["phones"]) == 12


def test_all_pauses_are_pauses() -> None:
    assert spoken_frames(np.full((5, 80), -11.0, np.float32)).tolist() == [1.0] * 5
