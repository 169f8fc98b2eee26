"""What two seconds of calibration cost, against the source speaker's enrolment.

    python tests/benchmarks/calibration.py --data ../shared/data/librispeech/test-clean
        --speakers 1221,4077,61,121

The first two (`base_held_out`) are the sources, each in both of their tests; all others and the
other source are the targets. The source's statistics come from its enrolment (8 recordings), from
the first two seconds of voiced speech in the test itself, or from the whole test.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from chorister.client.calibration import statistics_of
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.phones import find_recogniser
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.evaluation import calibrated_profile
from chorister.simulations.gates import deliver
from chorister.simulations.ge2e import Ge2e, find_ge2e_weights
from chorister.simulations.judges import CosineJudge
from chorister.simulations.trials import Wanted, open_panel

SOURCES = 2


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speakers", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, encoder, recogniser = load_base(), load_speaker_encoder(), find_recogniser()
    names = options.speakers.split(",")
    panel = open_panel(options.data, names, (), Wanted())
    voices = sorted(panel.tested, key=lambda voice: names.index(voice.name))
    profiles = [profile_from(voice.enrolment, encoder, model) for voice in voices]
    references = [voice.reference for voice in voices]
    judges = [CosineJudge("own encoder", encoder, references)]
    if (weights := find_ge2e_weights()) is not None:
        judges.insert(0, CosineJudge("ge2e", Ge2e(weights), references))
    print(f"| statistics | {' | '.join(judge.name for judge in judges)} | PER | F0 off by, cents |")
    print("|" + "---|" * (3 + len(judges)))
    rows: dict[str, list[list[float]]] = {}
    for source in range(SOURCES):
        for test in voices[source].tests:
            heard = extract_features(test)
            phones = recogniser.recognise(test.samples) if recogniser else []
            enrolled, whole = profiles[source], statistics_of(test.samples, heard.f0_hz)
            ways = {
                "enrolment": enrolled,
                "first 2 s": calibrated_profile(enrolled, test),
                "whole recording": replace(
                    enrolled,
                    mel_mean=whole.mel_mean,
                    mel_std=whole.mel_std,
                    log_f0_median=float(whole.log_f0[0]),
                    log_f0_spread=float(whole.log_f0[1]),
                ),
            }
            for target in (at for at in range(len(voices)) if at != source):
                for name, own in ways.items():
                    speech = deliver(test.samples, model.convert(heard, own, profiles[target]))
                    row = [judge.score(speech)[target] for judge in judges]
                    row.append(recogniser.phone_error_rate(phones, speech) if recogniser else 0.0)
                    off = own.log_f0_median - profiles[source].log_f0_median
                    row.append(1200.0 / np.log(2.0) * abs(off))
                    rows.setdefault(name, []).append(row)
    for name, found in rows.items():
        means = np.mean(found, axis=0)
        figures = " | ".join(f"{mean:.3f}" for mean in means[:-1])
        print(f"| {name} | {figures} | {means[-1]:.0f} |")


if __name__ == "__main__":
    main()
