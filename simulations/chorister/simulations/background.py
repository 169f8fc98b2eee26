"""Fitting a background mixture to many voices: what a voice is told apart from.

    python -m chorister.simulations.background --data ../shared/data/librispeech
        --split ../shared/data/librispeech/splits.json:base --out FILE [--components 32] [--slopes]

The file that `chorister personalise` judges by (shared/voice/weights/background.safetensors) was
made by that line; `chorister evaluate` fits its own, larger one on voices that it does not test.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from chorister.shared.console import say
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.mixture import BACKGROUND_FORMAT, Background, cepstral_frames
from chorister.simulations.corpus import open_corpus
from chorister.simulations.trials import read_speakers

MOST_FRAMES = 60_000
RECORDINGS_A_SPEAKER = 4
_SMALLEST_VARIANCE = 1e-4
_ROUNDS = 25


def fit_background(
    recordings: Iterable[Recording], components: int, *, with_slopes: bool, seed: int = 0
) -> Background:
    """Fit a mixture by expectation maximisation, from k-means.

    Args:
        recordings: of many voices, about as much of each; at most 60 000 of their frames are used.
        components: Gaussians.
        with_slopes: also model the cepstra's slopes.
        seed: of the start.

    Raises:
        BadCorpus: fewer frames than ten a component.
    """
    frames = [
        cepstral_frames(log_mel(recording.samples), with_slopes=with_slopes)
        for recording in recordings
    ]
    rows = np.concatenate(frames) if frames else np.zeros((0, 1))
    if len(rows) < 10 * components:
        raise BadCorpus(
            f"A background of {components} components needs {components / 10:.1f} s of speech.",
            f"{len(rows) / 100:.1f} s",
            "Give more recordings.",
        )
    chosen = np.random.default_rng(seed).permutation(len(rows))[:MOST_FRAMES]
    mixture = GaussianMixture(
        components,
        covariance_type="diag",
        random_state=seed,
        reg_covar=_SMALLEST_VARIANCE,
        max_iter=_ROUNDS,
        tol=0.0,
    )
    with warnings.catch_warnings():
        # A fixed number of rounds is what is wanted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(rows[np.sort(chosen)])
    return Background(mixture.weights_, mixture.means_, mixture.covariances_)


def write_background(background: Background, path: Path) -> None:
    """Write a mixture as float32, in the form that `mixture.read_background` reads."""
    arrays = {
        "weights": background.weights.astype(np.float32),
        "means": background.means.astype(np.float32),
        "variances": background.variances.astype(np.float32),
    }
    save_file(arrays, path, {"format": BACKGROUND_FORMAT})


def main(argv: list[str]) -> int:
    """Fit a mixture to a corpus's speakers; return the exit status."""
    parser = argparse.ArgumentParser(prog="chorister.simulations.background")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", metavar="FILE:NAME", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--slopes", action="store_true")
    options = parser.parse_args(argv)
    wanted = set(read_speakers(options.split))
    recordings = []
    for speaker in open_corpus(options.data).speakers:
        if speaker.name not in wanted:
            continue
        for utterance in speaker.utterances[:RECORDINGS_A_SPEAKER]:
            try:
                recordings.append(load_recording(utterance.path))
            except BadAudio:
                continue
    background = fit_background(recordings, options.components, with_slopes=options.slopes)
    write_background(background, options.out)
    say(f"{options.out}: {options.components} components from {len(recordings)} recordings")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
