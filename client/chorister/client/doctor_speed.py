"""How long a round and a second of conversion take here, measured with made-up speech."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from chorister.client import compute, consent
from chorister.client.adapter_check import effect_of
from chorister.client.convert import convert_recording
from chorister.client.export import Origin, build_voice
from chorister.client.material import analyse
from chorister.client.prepare import SEGMENT_S
from chorister.client.train import TrainingMaterial, train_shared_adapter
from chorister.client.voice import Voice
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.signing import SigningKey
from chorister.shared.types import SAMPLE_RATE_HZ, Adapter, Recording
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.adapters import attach_shared
from chorister.shared.voice.base import load_base
from chorister.shared.voice.base_digest import BASE_SHA256
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder

SEGMENTS = 48  # about a minute of speech
HELD_OUT = 12
TRIALS = 3
SOURCE_S = 10.0
_CONSENT_S = 3600


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured.

    Attributes:
        device: torch's name of what trained.
        round_s: one round's training and check, median of three after one to warm up; what waits
            for others and for the server comes on top.
        segments: of how many segments.
        convert_rtf: seconds that converting takes, over seconds of speech, by onnxruntime on one
            thread, median of three.
    """

    device: str
    round_s: float
    segments: int
    convert_rtf: float


def measure_speed(wanted: compute.Wanted = "auto") -> Speed:
    """Return how fast this machine trains and converts.

    Nothing of a real voice is used: the speech is synthetic, and its speaker made up for this.

    Args:
        wanted: what to train on.
    """
    segments = _speech(SEGMENTS, SEGMENT_S, seed=1)
    model, device = load_base(), compute.best_device(wanted)
    profile = profile_from(_speech(4, 4.0, seed=2), load_speaker_encoder(), model)
    task, spec = TrainingTask(), SharedAdapterSpec()
    attach_shared(model, spec)
    model.to(device)
    material = TrainingMaterial(analyse(segments), profile)
    held_out = analyse(_speech(HELD_OUT, SEGMENT_S, seed=3))
    adapter = Adapter(np.zeros(spec.size, np.float32), spec.digest)
    with tempfile.TemporaryDirectory() as folder:
        permit = _made_up_permits(Path(folder))

        def one_round() -> None:
            train_shared_adapter(
                model, spec, adapter, material, task, SegmentPrivacy(), permit("training"),
                system_clock(), SystemRandomness(),
            )  # fmt: skip
            effect_of(adapter, model, held_out, profile)
            if device.type == "cuda":
                torch.cuda.synchronize()

        one_round()
        round_s = statistics.median(_timed(one_round) for _ in range(TRIALS))
        voice = _voice(profile, permit("conversion"))
    source = _speech(1, SOURCE_S, seed=4)[0]
    convert_recording(voice, source)
    took_s = statistics.median(
        _timed(lambda: convert_recording(voice, source)) for _ in range(TRIALS)
    )
    return Speed(str(device), round_s, SEGMENTS, took_s / SOURCE_S)


def _voice(profile: SpeakerProfile, permit: consent.Permit) -> Voice:
    origin = Origin(BASE_SHA256, "", "made-up")
    return Voice(build_voice(load_base(), profile, permit, origin, now_s=system_clock()), "made-up")


def _made_up_permits(folder: Path) -> Callable[[consent.Purpose], consent.Permit]:
    key, now_s = SigningKey.generate(SystemRandomness()), system_clock()
    record = consent.give(
        key, controller="this measurement", purposes=("training", "conversion"), given_s=now_s,
        expires_s=now_s + _CONSENT_S, jurisdiction="none: nobody's voice",
    )  # fmt: skip
    ledger = LedgerFile(folder / "ledger.jsonl", owner=key.verify_key().name, federation="none")
    return lambda purpose: consent.permit(
        record, purpose, device=key.verify_key(), now_s=now_s, ledger=ledger
    )


def _speech(count: int, seconds: float, *, seed: int) -> list[Recording]:
    """Return harmonics with gliding pitch, noise and pauses: what takes as long as speech does."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        f0 = 140.0 * np.exp(0.2 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)))
        phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE_HZ
        tone = sum(np.sin(k * phase) / k for k in range(1, 16))
        loud = np.sin(2 * np.pi * 1.3 * t + rng.uniform(0, 6)) > -0.4
        wave = 0.06 * tone * loud + 0.004 * rng.standard_normal(len(t))
        found.append(Recording(wave.astype(np.float32), f"made-up {number}"))
    return found


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
