"""How a copy of a speaker's own words differs from the recording: level, and each part of the band.

    python tests/benchmarks/own_voice.py --data ../shared/data/librispeech/test-clean
        --speakers 1221,4077,5142,6829

Enrolled from the first 8 recordings; the next 4 are converted to the same speaker, as the model
gives them (`chorister convert` matches the level afterwards).
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features, log_mel, mel_edges_hz
from chorister.shared.voice.loudness import loudness_lufs
from chorister.shared.voice.metrics import DB_PER_NEPER
from chorister.shared.voice.profile import LOUD_PERCENTILE, SPEECH_RANGE, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.corpus import open_corpus

ENROLLED = 8
COPIED = 4
BOUNDS_HZ = (0, 500, 1000, 2000, 3000, 4000, 5000, 6000, 8000)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speakers", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, encoder = load_base(), load_speaker_encoder()
    centres_hz = mel_edges_hz()[1:-1]
    parts = list(pairwise(BOUNDS_HZ))
    print(f"| speaker | level, LU | {' | '.join(f'{a} to {b} Hz, dB' for a, b in parts)} |")
    print("|" + "---|" * (2 + len(parts)))
    wanted = options.speakers.split(",")
    for speaker in open_corpus(options.data).speakers:
        if speaker.name not in wanted:
            continue
        recordings = [load_recording(u.path) for u in speaker.utterances[: ENROLLED + COPIED]]
        profile = profile_from(recordings[:ENROLLED], encoder, model)
        levels, bands = [], []
        for recording in recordings[ENROLLED:]:
            speech = model.convert(extract_features(recording), profile, profile)
            speech = speech[: len(recording.samples)]
            true, made = log_mel(recording.samples), log_mel(speech)
            level = true.mean(axis=1)
            spoken = level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE
            levels.append(loudness_lufs(speech) - loudness_lufs(recording.samples))
            bands.append(DB_PER_NEPER * (made - true)[spoken].mean(axis=0))
        mean = np.mean(bands, axis=0)
        figures = [mean[(centres_hz >= a) & (centres_hz < b)].mean() for a, b in parts]
        row = " | ".join(f"{value:.1f}" for value in (np.mean(levels), *figures))
        print(f"| {speaker.name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
