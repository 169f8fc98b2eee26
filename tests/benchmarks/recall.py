"""How far to move content and envelopes towards the table, how sharply, with how much contrast.

    python tests/benchmarks/recall.py --data ../shared/data [--weights FILE] [--utterances 1]
        [--as-it-is] [--snr DB]

Targets are the held-out speakers of the base's split and, because those are two, their copies
played 10 % slower and 11 % faster, which are other voices to every judge. Similarity is GE2E's with
recordings that nothing else used, LLR the Gaussian mixtures', Z-normed by the six's references.
The two distances are of copies of one utterance of each target.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr
import torch

from chorister.shared.console import say
from chorister.shared.types import SAMPLE_RATE_HZ, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.metrics import log_mel_distance_db, mel_cepstral_distortion_db
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.acoustics import add_noise
from chorister.simulations.ge2e import Ge2e, find_ge2e_weights
from chorister.simulations.judges import CosineJudge, MixtureJudge

LONGEST_S = 8.0
ENROLMENT, REFERENCE, TESTS = slice(0, 8), slice(8, 16), 16
SPEEDS = (1.0, 0.9, 1.11)
# Share of the envelopes' way (times the weights'), of the content's (as it is), the contrast's
# gains (to this power), sharpness (times the weights'), frames of the table.
VARIANTS = ((0.0, 0.0, 0.0, 1.0, 2000), (1.0, 0.0, 0.0, 1.0, 2000), (1.0, 0.5, 0.0, 1.0, 2000),
            (1.0, 0.5, 1.0, 1.0, 2000), (1.0, 0.5, 1.5, 1.0, 2000), (0.8, 0.5, 1.0, 1.0, 2000),
            (1.2, 0.5, 1.0, 1.0, 2000), (1.0, 0.3, 1.0, 1.0, 2000), (1.0, 0.7, 1.0, 1.0, 2000),
            (1.0, 0.5, 1.0, 1.5, 2000), (1.0, 0.5, 1.0, 1.0, 500))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A voice to convert to: its speaker, enrolment and reference recordings."""

    speaker: str
    speed: float
    recordings: tuple[Recording, ...]


def read(folder: Path, speaker: str, speed: float) -> Target:
    """The first recordings of a speaker, at most 8 s each, at a speed."""
    found = []
    for path in sorted((folder / speaker).rglob("*.opus"))[: TESTS + 4]:
        samples = load_recording(path).samples
        if speed != 1.0:
            samples = soxr.resample(samples, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ)
        kept = samples[: int(LONGEST_S * SAMPLE_RATE_HZ)].astype(np.float32)
        found.append(Recording(kept, path.stem))
    return Target(speaker, speed, tuple(found))


def varied(
    model: VoiceModel, share: float, content: float, contrast: float, sharpness: float
) -> VoiceModel:
    """The model with share and sharpness multiplied, gains to a power, the content's share set."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.decoder.recall.share.mul_(share)
        other.decoder.recall.content_share.fill_(content)
        other.decoder.contrast.pow_(contrast)
        other.decoder.recall.sharpness.add_(float(np.log(sharpness)))
    return other


def thinned(profile: SpeakerProfile, count: int) -> SpeakerProfile:
    """The profile with at most so many sounds."""
    rows = np.random.default_rng(0).permutation(len(profile.sounds_content))[:count]
    return replace(
        profile,
        sounds_content=profile.sounds_content[rows],
        sounds_log_mel=profile.sounds_log_mel[rows],
    )


def heard(recording: Recording, snr_db: float | None) -> Recording:
    """The recording, with noise where it is asked for; the same noise every time."""
    if snr_db is None:
        return recording
    noisy = add_noise(recording.samples, snr_db, np.random.default_rng(0), slope_db=-3.0)
    return Recording(noisy.astype(np.float32), recording.name)


def copied(model: VoiceModel, target: Target, profile: SpeakerProfile) -> tuple[float, float]:
    """Log-mel distance and MCD of a copy of a target's own utterance, dB."""
    recording = target.recordings[TESTS]
    speech = model.convert(extract_features(recording), profile, profile)
    pair = log_mel(recording.samples[: len(speech)]), log_mel(speech)
    return log_mel_distance_db(*pair), mel_cepstral_distortion_db(*pair)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="default: the shipped base")
    parser.add_argument("--as-it-is", action="store_true", help="the weights' own settings alone")
    parser.add_argument("--snr", type=float, help="sources in noise at so many dB")
    parser.add_argument("--utterances", type=int, default=1, help="conversions a pair, at most 4")
    options = parser.parse_args()
    torch.set_num_threads(1)
    splits = json.loads((options.data / "librispeech/splits.json").read_text())
    folder = options.data / "librispeech/test-clean"
    targets = [read(folder, one, speed) for one in splits["base_held_out"] for speed in SPEEDS]
    ge2e = find_ge2e_weights()
    if ge2e is None:
        raise SystemExit("This needs GE2E: pip install --no-deps resemblyzer==0.1.4")
    references = [target.recordings[REFERENCE] for target in targets]
    judge, mixtures = CosineJudge("ge2e", Ge2e(ge2e), references), MixtureJudge(references)
    model, encoder, recogniser = (
        load_base(options.weights),
        load_speaker_encoder(),
        PhoneRecogniser(),
    )
    profiles = [profile_from(target.recordings[ENROLMENT], encoder, model) for target in targets]
    say(
        " share content contrast  sharp  table  similarity to source     LLR    PER  log-mel    MCD"
    )
    own = (1.0, float(model.decoder.recall.content_share), 1.0, 1.0, 2000)
    for share, content, contrast, sharpness, count in (own,) if options.as_it_is else VARIANTS:
        speaking, rows = varied(model, share, content, contrast, sharpness), []
        thin = [thinned(profile, count) for profile in profiles]
        for s, source in enumerate(targets):
            if source.speed != 1.0:
                continue
            for recording in source.recordings[TESTS : TESTS + options.utterances]:
                said = recogniser.recognise(recording.samples)
                for t, profile in enumerate(thin):
                    if t == s:
                        continue
                    features = extract_features(heard(recording, options.snr))
                    speech = speaking.convert(features, profiles[s], profile)
                    near = judge.score(speech)
                    mixture = mixtures.standardise(mixtures.score(speech))
                    per = recogniser.phone_error_rate(said, speech)
                    rows.append((near[t], near[s], mixture[t], per))
        similarity, residual, llr, per = np.mean(rows, axis=0)
        figures = f"{similarity:11.3f} {residual:9.3f} {llr:7.2f} {per:6.3f}"
        copies = [
            copied(speaking, target, profile) for target, profile in zip(targets, thin, strict=True)
        ]
        figures += "".join(f" {figure:8.2f}" for figure in np.mean(copies, axis=0))
        settings = f"{share:6.1f} {content:7.1f} {contrast:8.1f} {sharpness:6.1f} {count:6d}"
        say(f"{settings} {figures}")


if __name__ == "__main__":
    main()
