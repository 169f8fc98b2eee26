"""What keeps conversions voiced, step by step: voicing error, files that fail the gate, words.

    python tests/benchmarks/voicing.py --data ../shared/data/librispeech/test-clean
        --speakers 1221,4077,61,121,237,260,672,908,1089,1284,1320,1580 [--no-phones]

Speakers that the model was trained on may be among them: settings are chosen on these and on
`base_held_out`, never on `dev_test`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from chorister.shared.types import FeatureSequence, FloatArray
from chorister.shared.voice import model as voice_model
from chorister.shared.voice.base import load_base
from chorister.shared.voice.contrast import restore_contrast
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.metrics import voicing_error
from chorister.shared.voice.model import VoiceModel, move_pitch, single_batch
from chorister.shared.voice.phones import find_recogniser
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.shared.voice.voicing import early_onsets, keep_voiced
from chorister.simulations.gates import LARGEST_VOICING_ERROR, deliver
from chorister.simulations.trials import Wanted, open_panel


@dataclass(frozen=True)
class Way:
    """One row: what is done of the four things."""

    name: str
    lowest_hz: float = 65.0
    largest_spread: float = 1.5
    early: bool = True
    bounded: bool = True


WAYS = (
    Way("as before", 50.0, 2.0, early=False, bounded=False),
    Way("pitch from 65 Hz on, spread at most 1.5 times", early=False, bounded=False),
    Way("and deep voices begin a frame earlier", bounded=False),
    Way("and noise below 1 kHz bounded"),
)


def speak(
    model: VoiceModel,
    features: FeatureSequence,
    source: SpeakerProfile,
    target: SpeakerProfile,
    way: Way,
) -> FloatArray:
    """One conversion."""
    f0_hz = move_pitch(features.f0_hz, source, target)
    batch = single_batch(FeatureSequence(features.log_mel, f0_hz), source, target)
    if way.early:
        batch = replace(batch, f0_hz=early_onsets(batch.f0_hz))
    hiss = draw_hiss((1, len(f0_hz) * 160), torch.Generator().manual_seed(0))
    with torch.inference_mode():
        envelopes = restore_contrast(*model.envelopes(batch), batch.f0_hz, model.decoder.contrast)
        if way.bounded:
            envelopes = keep_voiced(*envelopes, batch.f0_hz)
        return np.asarray(model.vocoder(*envelopes, batch.f0_hz, hiss)[0].numpy())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speakers", required=True)
    parser.add_argument("--no-phones", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, encoder = load_base(), load_speaker_encoder()
    recogniser = None if options.no_phones else find_recogniser()
    names = options.speakers.split(",")
    panel = open_panel(options.data, names, (), Wanted())
    voices = sorted(panel.tested, key=lambda voice: names.index(voice.name))
    profiles = [profile_from(voice.enrolment, encoder, model) for voice in voices]
    # Each voice speaks what the next one says in one test, and the fourth after it in the other.
    pairs = [
        ((at + step) % len(voices), at, step % 2) for at in range(len(voices)) for step in (1, 4)
    ]
    features = {(at, which): extract_features(voices[at].tests[which]) for at, _, which in pairs}
    phones = {
        (at, which): recogniser.recognise(voices[at].tests[which].samples) if recogniser else []
        for at, _, which in pairs
    }
    print("| | voicing error | files above 5 % | PER |\n|---|---|---|---|")
    for way in WAYS:
        voice_model.LOWEST_PITCH_HZ = way.lowest_hz
        voice_model.SPREAD_RATIO_LIMITS = (0.5, way.largest_spread)
        errors, words = [], []
        for source, target, which in pairs:
            said, own = features[source, which], (profiles[source], profiles[target])
            made = speak(model, said, *own, way)
            errors.append(voicing_error(said.f0_hz, estimate_f0(made)))
            if recogniser:
                heard = deliver(voices[source].tests[which].samples, made)
                words.append(recogniser.phone_error_rate(phones[source, which], heard))
        failed = sum(error > LARGEST_VOICING_ERROR for error in errors)
        per = f"{np.mean(words):.3f}" if words else ""
        print(
            f"| {way.name} | {np.mean(errors):.4f} | {failed} of {len(errors)} | {per} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
