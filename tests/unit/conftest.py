"""A small voice file and something like speech, for every test that converts."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from chorister.shared.types import FloatArray

# torch and onnx are loaded where a test asks for them: most tests do not.
if TYPE_CHECKING:
    from chorister.client.consent import Permit, Purpose
    from chorister.shared.voice.model import VoiceModel
    from chorister.shared.voice.profile import SpeakerProfile

    Permits = Callable[[Purpose], Permit]

NOW_S = 1_800_000_000
RATE = 16_000


def speech_like(seconds: float, seed: int = 0) -> FloatArray:
    """Gliding harmonics with formant-like colour, noise bursts and pauses, at about -26 dB."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    f0 = 150.0 * np.exp(0.25 * np.sin(2 * np.pi * 0.6 * t + seed))
    phase = np.cumsum(f0) / RATE
    tone = sum(np.sin(2 * np.pi * k * phase) / k**0.8 for k in range(1, 20))
    voiced = (np.sin(2 * np.pi * 1.1 * t) > -0.3).astype(np.float64)
    hiss = rng.normal(0, 0.4, len(t)) * (np.sin(2 * np.pi * 1.1 * t) < -0.8)
    smooth = np.convolve(voiced, np.ones(320) / 320, "same")
    swell = 0.7 + 0.3 * np.sin(2 * np.pi * 0.23 * t)
    return (0.05 * swell * (tone * smooth + hiss)).astype(np.float32)


def a_profile(seed: int, median_hz: float = 210.0) -> SpeakerProfile:
    from chorister.shared.voice.profile import SpeakerProfile

    rng = np.random.default_rng(seed)
    vector = rng.normal(size=256).astype(np.float32)
    return SpeakerProfile(
        vector=vector / np.linalg.norm(vector),
        mel_mean=rng.normal(-4.0, 1.0, 80).astype(np.float32),
        mel_std=rng.uniform(0.5, 2.0, 80).astype(np.float32),
        log_f0_median=float(np.log(median_hz)),
        log_f0_spread=0.2,
        seconds=30.0,
        sounds_content=rng.normal(size=(40, 8)).astype(np.float32),
        sounds_log_mel=rng.normal(-4.0, 1.0, (40, 80)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def speech() -> Callable[[float, int], FloatArray]:
    return speech_like


@pytest.fixture(scope="session")
def target() -> SpeakerProfile:
    return a_profile(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[[], VoiceModel]:
    return untrained_model


@pytest.fixture
def small_model() -> VoiceModel:
    return untrained_model()


def untrained_model() -> VoiceModel:
    import torch

    from chorister.shared.voice.model import ModelSettings, VoiceModel

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = VoiceModel(
            ModelSettings(
                content=8, encoder_width=16, encoder_blocks=2, decoder_width=24, decoder_blocks=2
            )
        )
        # Untrained blocks start as near identities: make them count.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    # As in a trained base: what is said is moved towards the table as well, and ripples grow.
    model.decoder.recall.content_share.fill_(0.6)
    model.decoder.contrast[2:40] = 1.2
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="session")
def make_streaming_model() -> Callable[[], VoiceModel]:
    return untrained_streaming_model


def untrained_streaming_model(encoder_ahead: tuple[int, ...] = (2, 1)) -> VoiceModel:
    """The small model with less look-ahead, 30 ms if not told otherwise."""
    from dataclasses import replace

    from chorister.shared.voice.model import VoiceModel

    offline = untrained_model()
    model = VoiceModel(replace(offline.settings, encoder_ahead=encoder_ahead, decoder_ahead=(0, 0)))
    model.load_state_dict(offline.state_dict())
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="session")
def permits(tmp_path_factory: pytest.TempPathFactory) -> Permits:
    """Permits of a speaker who consented to all but 'speech', until an hour after NOW_S."""
    from chorister.client import consent
    from chorister.shared.privacy.ledger_file import LedgerFile
    from chorister.shared.randomness import SystemRandomness
    from chorister.shared.signing import SigningKey

    key = SigningKey.generate(SystemRandomness())
    purposes: tuple[Purpose, ...] = ("training", "conversion", "plain_export")
    record = consent.give(
        key,
        controller="the tests",
        purposes=purposes,
        given_s=NOW_S,
        expires_s=NOW_S + 3600,
        jurisdiction="EU",
    )
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = LedgerFile(path, owner=key.verify_key().name, federation="tests")
    return lambda purpose: consent.permit(
        record, purpose, device=key.verify_key(), now_s=NOW_S, ledger=ledger
    )


@pytest.fixture(scope="session")
def voice_path(
    tmp_path_factory: pytest.TempPathFactory, permits: Permits, target: SpeakerProfile
) -> Path:
    """A voice file of an untrained small model."""
    from chorister.client.export import Origin, export_voice

    path = tmp_path_factory.mktemp("voice") / "voice.onnx"
    origin = Origin("a" * 64, "b" * 64, "somebody")
    export_voice(untrained_model(), target, permits("plain_export"), origin, path, now_s=NOW_S)
    return path


@pytest.fixture(scope="session")
def live_voice_path(
    tmp_path_factory: pytest.TempPathFactory, permits: Permits, target: SpeakerProfile
) -> Path:
    """A live voice file of an untrained small model."""
    from chorister.client.export import Origin
    from chorister.client.stream_export import export_live_voice

    path = tmp_path_factory.mktemp("voice") / "live.onnx"
    origin = Origin("a" * 64, "b" * 64, "somebody")
    model, permit = untrained_streaming_model(), permits("plain_export")
    export_live_voice(model, target, permit, origin, path, now_s=NOW_S)
    return path


@pytest.fixture(scope="session")
def choirs() -> ModuleType:
    """The module choir.py beside this file."""
    spec = importlib.util.spec_from_file_location("choir", Path(__file__).with_name("choir.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["choir"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def material(choirs: ModuleType) -> Callable[..., object]:
    """Makes training material of so many tiny segments."""
    made: Callable[..., object] = choirs.a_material
    return made


@pytest.fixture
def trainable_model(choirs: ModuleType) -> VoiceModel:
    """A small untrained base with a shared adapter attached."""
    model: VoiceModel = choirs.a_trainable_model(untrained_model())
    return model


@pytest.fixture
def choir(
    tmp_path: Path,
    choirs: ModuleType,
    trainable_model: VoiceModel,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., object]:
    """Makes a choir; private where asked."""
    # No test cuts the power: what a killed process wrote, the next one reads without it.
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def make(*, private: bool = False, **choices: object) -> object:
        choices.setdefault("federation", choirs.PRIVATE if private else choirs.PLAIN)
        return choirs.Choir(tmp_path / "choir", trainable_model, **choices)

    return make
