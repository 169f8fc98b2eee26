"""Does the judge of a personal voice decide as the truth would? By what it is tried on.

    python tests/benchmarks/judge.py --data ../shared/data/librispeech --seed 0

Voices are the held-out speakers of the base's split and their copies played 10 % slower and 11 %
faster, personalised from at most three minutes. The truth: conversions of six other speakers,
likeness by Gaussian mixtures of recordings that nothing else used, phone errors. The judge sees the
probes that the package ships, or the speaker's own held-out speech in disguise.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from chorister.client import personalise as personalising
from chorister.client.consent import Permit
from chorister.client.personal_judge import (
    WORDS_BY_PHONES,
    Opinion,
    PersonalJudge,
    shipped_background,
)
from chorister.client.personal_lessons import disguised
from chorister.client.prepare import segments
from chorister.client.probes import Probe, probe_of, shipped_probes
from chorister.shared.types import Recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.mixture import VoiceMixture
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.trials import Wanted, open_panel

SPEEDS = (1.0, 0.9, 1.11)
SOURCES, LONGEST = 6, 96_000
REFERENCE, HELD_OUT_EVERY, MOST_S = 12, 6, 180.0


class Approving:
    """Lets `personalise` keep whatever looked best by the encoder that it learns from."""

    def __init__(self, *_: object) -> None:
        self._looks = 0

    def look(self, _: VoiceModel) -> Opinion:
        """Each look is better than the one before."""
        self._looks += 1
        return Opinion(float(self._looks), 0.5, WORDS_BY_PHONES)


class Anything(Permit):
    """A permit for a corpus whose licence allows it."""

    def __init__(self) -> None:
        pass

    def require(self, purpose: str, now_s: int) -> None:
        """Allowed."""


class Truth:
    """Conversions of other speakers to one voice."""

    def __init__(
        self, reference: Sequence[Recording], sources: Sequence[tuple[Recording, SpeakerProfile]]
    ) -> None:
        self._ears = PhoneRecogniser()
        mels = [log_mel(recording.samples) for recording in reference]
        self._mixture = VoiceMixture(shipped_background(), mels)
        parts = [(Recording(one.samples[:LONGEST], one.name), p) for one, p in sources]
        self._said = [(extract_features(one), p) for one, p in parts]
        self._phones = [self._ears.recognise(one.samples) for one, _ in parts]

    def of(self, model: VoiceModel, target: SpeakerProfile) -> tuple[float, float]:
        """Mean likeness and mean phone error rate."""
        made = [model.convert(said, source, target) for said, source in self._said]
        likeness = np.mean([self._mixture.ratio(log_mel(speech)) for speech in made])
        pairs = zip(self._phones, made, strict=True)
        return float(likeness), float(np.mean([self._ears.phone_error_rate(*p) for p in pairs]))


def own_disguised(held_out: Sequence[Recording], model: VoiceModel) -> tuple[Probe, ...]:
    """What the judge was given before the package shipped probes."""
    own = np.concatenate([segment.samples for segment in held_out[:12]])
    copies = (disguised(Recording(own, "own"), factor) for factor in (0.84, 1.19))
    return tuple(probe_of(one, model, PhoneRecogniser()) for one in copies)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    splits = json.loads((options.data / "splits.json").read_text())
    folder = options.data / "test-clean"
    # The last ones: the probes are of the first ones.
    known = [name for name in splits["base"] if (folder / name).is_dir()][-SOURCES:]
    base, encoder = load_base(), load_speaker_encoder()
    panel = open_panel(folder, [*splits["base_held_out"], *known], (), Wanted(8, MOST_S))
    voices = {voice.name: voice for voice in panel.tested}
    sources = [
        (voices[name].tests[0], profile_from(voices[name].enrolment, encoder, base))
        for name in known
    ]
    vars(personalising)["PersonalJudge"] = Approving
    settings = personalising.PersonaliseSettings(
        seed=options.seed, learning_rate=options.learning_rate
    )
    print("| voice | truth: likeness, words | shipped probes | own speech in disguise |")
    print("|---|---|---|---|")
    for name in splits["base_held_out"]:
        for speed in SPEEDS:
            voice = voices[name]
            own = [disguised(one, speed) for one in voice.adaptation]
            reference = [disguised(one, speed) for one in voice.reference[-REFERENCE:]]
            profile = profile_from(own, encoder, base)
            cut = segments(own)
            held_out = cut[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
            training = [one for at, one in enumerate(cut) if (at + 1) % HELD_OUT_EVERY]
            model, truth = copy.deepcopy(base), Truth(reference, sources)
            judges = {
                "shipped": PersonalJudge(own, shipped_probes(base), profile, PhoneRecogniser()),
                "own": PersonalJudge(own, own_disguised(held_out, base), profile,
                                     PhoneRecogniser()),
            }  # fmt: skip
            before = {kind: judge.look(model) for kind, judge in judges.items()}
            true_before = truth.of(model, profile)
            done = personalising.personalise(
                model, training, held_out, profile, (), encoder, Anything(), now_s=0,
                settings=settings,
            )  # fmt: skip
            if not done.kept:
                print(f"| {name}, {speed} | none looked better | | |", flush=True)
                continue
            gained = np.subtract(truth.of(model, profile), true_before)
            cells = [f"{gained[0]:+.3f}, {gained[1]:+.3f}"]
            for kind, judge in judges.items():
                after = judge.look(model)
                change = after.likeness - before[kind].likeness, after.words - before[kind].words
                verdict = "kept" if after.beats(before[kind]) else "refused"
                cells.append(f"{change[0]:+.3f}, {change[1]:+.3f}: {verdict}")
            print(f"| {name}, {speed} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
