"""The last part of a run: personal voices for speakers outside the federation, and audio to
compare.

Each voice is personalised on top of the final shared adapter from the speaker's own recordings, as
its owner's device would do it; nothing of it is shared. The first becomes voice.onnx.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from chorister.client.export import Origin, export_voice
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.client.personalise import (
    Personalised,
    PersonaliseSettings,
    personalise,
)
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.console import progress
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.types import SAMPLE_RATE_HZ, Adapter, FloatArray, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.audio import save_recording
from chorister.shared.voice.base_digest import BASE_SHA256
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.loudness import match_level
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations import enrolment, network, recordings, speaker_device
from chorister.simulations.speakers import Piece, Skipped, Speaker, split_speaker
from chorister.simulations.vocoder_copy import copy_by_vocoder
from chorister.simulations.world import World

SAMPLE_S = 5.0
COPY_STEPS = 20
TRAINING_SEGMENTS = 60
REFERENCES = 8


@dataclass(frozen=True, slots=True)
class Voices:
    """What this part adds to run.json."""

    personalised: list[dict[str, Any]]
    voice: dict[str, Any] | None
    samples: list[dict[str, Any]]


def make_voices(world: World, final: Adapter) -> Voices:
    """Personalise held-out voices, export the first, and write samples.

    Args:
        world: of the run.
        final: the last version of the shared adapter.
    """
    chosen = world.held_out[: world.scenario.personalise]
    found = Voices([], None, [])
    if not chosen:
        return found
    steps = world.scenario.personalise_steps
    with progress("Personalising voices", len(chosen) * steps) as step:
        for speaker in chosen:
            target = _Target(world, speaker, final)
            result = target.personalise(steps, lambda _: step())
            delta = world.scenario.federation.segment_privacy.delta_dp
            found.personalised.append(_row(speaker, result, delta))
            voice = target.export() if not found.samples else None
            if voice is not None:
                found = Voices(found.personalised, voice, found.samples)
            found.samples.append(target.sample(_other_speaker(world, speaker)))
    return found


class _Target:
    """One voice: the base, the final shared adapter, and its own personal adapter."""

    def __init__(self, world: World, speaker: Speaker, final: Adapter) -> None:
        self._world = world
        self._speaker = speaker
        self._final = final
        self._device = speaker_device.open_speaker(world, speaker)
        self._profile, self._gain = recordings.load_profile(speaker, self._device.vault)
        spec = enrolment.spec_of(world.scenario)
        self._zero_shot: VoiceModel = copy.deepcopy(network.shared_model(spec))
        adapters.write_shared(self._zero_shot, final.values)
        self._personal: VoiceModel = copy.deepcopy(self._zero_shot)

    def personalise(self, steps: int, on_step: Any) -> Personalised:
        """Train the personal adapter on the speaker's own recordings."""
        vault = self._device.vault
        training = recordings.load_segments(self._speaker, vault, "training").recordings
        held_out = recordings.load_segments(self._speaker, vault, "held_out").recordings
        other = _other_speaker(self._world, self._speaker)
        layout = self._world.scenario.personal_adapter
        return personalise(
            self._personal,
            training[:TRAINING_SEGMENTS],
            held_out or training[-2:],
            self._profile,
            other.read_all(split_speaker(other).held_out[:3], Skipped()),
            load_speaker_encoder(),
            self._device.permit("training"),
            now_s=self._device.now_s,
            settings=PersonaliseSettings(
                rank=layout.rank,
                placement=layout.placement,
                steps=steps,
                seed=self._world.scenario.seed,
            ),
            privacy=self._privacy(),
            on_step=on_step,
        )

    def _privacy(self) -> PersonalPrivacy | None:
        scenario = self._world.scenario
        if not scenario.personal_private:
            return None
        randomness = self._device.randomness.fork("personalise")
        return PersonalPrivacy(scenario.federation.segment_privacy, randomness)

    def export(self) -> dict[str, Any]:
        """Write voice.onnx."""
        path = self._world.folder.voice
        origin = Origin(
            BASE_SHA256, adapter_digest(self._final), self._device.key.verify_key().name
        )
        permission = self._device.permit("plain_export")
        now_s = self._device.now_s
        digest = export_voice(self._personal, self._profile, permission, origin, path, now_s=now_s)
        self._device.ledger.append("export", voice=digest, consent=permission.consent_sha256)
        return {"path": path.name, "sha256": digest, "speaker": self._speaker.name}

    def sample(self, source: Speaker) -> dict[str, Any]:
        """Write one sentence of another speaker in this voice, and what to compare it with."""
        piece, own = _same_sentence(source, self._speaker)
        source_profile, gain = recordings.load_profile(
            source, speaker_device.open_speaker(self._world, source).vault
        )
        spoken = _cut(source.read(piece), gain)
        features = extract_features(spoken)
        clips = {
            "source": spoken.samples,
            "target": _cut(self._speaker.read(own), self._gain).samples,
            "vocoder_copy": copy_by_vocoder(features, spoken.samples, COPY_STEPS),
            "zero_shot": self._zero_shot.convert(features, source_profile, self._profile),
            "personalised": self._personal.convert(features, source_profile, self._profile),
        }
        folder = self._world.folder.samples
        folder.mkdir(exist_ok=True)
        name = f"{source.name}-as-{self._speaker.name}"
        files = {}
        for kind, samples in clips.items():
            path = folder / f"{name}-{kind}.wav"
            save_recording(path, match_level(samples), overwrite=True)
            files[kind] = str(path.relative_to(self._world.folder.root))
        return {
            "id": name,
            "target": self._speaker.name,
            "source": source.name,
            "transcript": piece.utterance.transcript(),
            "files": files,
            "similarity": {
                kind: _similarity(clips[kind], self._profile)
                for kind in ("zero_shot", "personalised")
            },
        }


def _row(speaker: Speaker, result: Personalised, delta: float) -> dict[str, Any]:
    return {
        "epsilon_segment": None
        if result.event is None
        else segment_figure((result.event,), delta).epsilon,
        "speaker": speaker.name,
        "loss_before": result.loss_before,
        "loss_after": result.loss_after,
        "similarity_zero_shot": result.similarity_before,
        "similarity_personalised": result.similarity_after,
        "kept": result.kept,
        "seconds": result.seconds,
        "adapter_size": sum(t.numel() for t in result.adapter.values()) if result.kept else 0,
    }


def _other_speaker(world: World, speaker: Speaker) -> Speaker:
    """Return somebody else to convert from: a voice outside the federation if there is one."""
    others = [s for s in (*world.held_out, *world.clients) if s.name != speaker.name]
    return others[0]


def _same_sentence(source: Speaker, target: Speaker) -> tuple[Piece, Piece]:
    """Return a held-out piece of the source, and the target's own saying of it if there is one."""
    pieces = split_speaker(source).held_out
    words = {u.transcript(): u for u in target.utterances if u.transcript()}
    for piece in pieces:
        if piece.utterance.transcript() in words:
            return piece, Piece(words[piece.utterance.transcript()])
    return pieces[0], split_speaker(target).held_out[0]


def _cut(recording: Recording, gain: float) -> Recording:
    length = round(SAMPLE_S * SAMPLE_RATE_HZ)
    return Recording((recording.samples[:length] * gain).astype(np.float32), recording.name)


def _similarity(samples: FloatArray, profile: SpeakerProfile) -> float:
    vector = load_speaker_encoder().embed(log_mel(samples))
    return float(np.dot(vector, profile.vector))
