"""What the vocoder's noise is worth: white noise against the even noise that it reads.

    python tests/benchmarks/even_noise.py --data ../shared/data/librispeech/test-clean
        --speakers 1221,4077

For each speaker's 17th recording (at most 6 s) envelopes are fitted as for a vocoder copy, with
each kind of noise, and rendered twice with other draws. `copy` is the distance of one to the
recording, `draws` that of both to each other: what no envelope can do anything about.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.metrics import log_mel_distance_db, mel_cepstral_distortion_db
from chorister.shared.voice.vocoder import Vocoder
from chorister.simulations import vocoder_copy

LONGEST_S = 6
RECORDING = 16


def white(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """White noise of unit variance."""
    return torch.randn(shape, generator=generator)


def distances(one: FloatArray, other: FloatArray) -> str:
    """Log-mel distance and MCD of two log-mels, dB."""
    return f"{log_mel_distance_db(one, other):8.2f} {mel_cepstral_distortion_db(one, other):8.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speakers", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, Callable[..., Tensor]] = {"white": white, "even": draw_hiss}
    print("speaker  noise  copy log-mel      MCD  draws log-mel     MCD")
    for speaker in options.speakers.split(","):
        path = sorted((options.data / speaker).rglob("*.opus"))[RECORDING]
        samples = load_recording(path).samples[: LONGEST_S * SAMPLE_RATE_HZ]
        features = extract_features(Recording(samples, path.stem))
        for name, draw in kinds.items():
            vocoder_copy.draw_hiss = draw  # type: ignore[attr-defined]
            harmonic, noise = vocoder_copy.fit_envelopes(features, samples)
            rendered = []
            for seed in (0, 1):
                shape = (1, len(features.f0_hz) * 160)
                hiss = draw(shape, torch.Generator().manual_seed(seed))
                f0_hz = torch.from_numpy(features.f0_hz[None])
                with torch.inference_mode():
                    speech = Vocoder()(harmonic, noise, f0_hz, hiss)[0]
                rendered.append(log_mel(np.asarray(speech.numpy())))
            print(
                f"{speaker:>7}  {name:5}  {distances(features.log_mel, rendered[0])}"
                f"    {distances(*rendered)}"
            )


if __name__ == "__main__":
    main()
