"""Resemblyzer's GE2E speaker encoder: teacher of our own encoder and external judge of voices.

Only the published weights file is used, read from the installed package `resemblyzer`; neither its
code nor its dependencies are imported. It is no dependency of the product: without it,
`find_ge2e_weights` returns nothing and the evaluation says which judge it used instead.

Source: Wan et al., Generalized End-to-End Loss for Speaker Verification, ICASSP 2018; weights and
analysis settings of Resemblyzer 0.1 (Apache 2.0).
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray
from torch import Tensor, nn

from chorister.shared.errors import BadWeights, UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.features import hz_to_mel, mel_to_hz
from chorister.shared.voice.frames import hann

GE2E_BANDS = 40
GE2E_SIZE = 256
GE2E_FRAMES = 160
GE2E_LEVEL_DBFS = -30.0
_FFT = 400
_HOP = 160


def find_ge2e_weights() -> Path | None:
    """Return the weights file of the installed `resemblyzer`, or None where it is not installed."""
    spec = find_spec("resemblyzer")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "pretrained.pt"
        if path.is_file():
            return path
    return None


@cache
def ge2e_filters() -> FloatArray:
    """Slaney's area-normalised filterbank, shape (201, 40), on power."""
    edges_mel = np.linspace(0.0, hz_to_mel(np.array([SAMPLE_RATE_HZ / 2.0]))[0], GE2E_BANDS + 2)
    edges = mel_to_hz(edges_mel)
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2.0, _FFT // 2 + 1)[:, None]
    low, peak, high = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    weights = np.minimum((bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak))
    area = 2.0 / (high - low)
    return np.asarray(np.maximum(weights, 0.0) * area, np.float32)


def ge2e_mel(samples: FloatArray) -> FloatArray:
    """Mel power as GE2E reads it, after levelling to -30 dBFS (quiet speech is raised only).

    Args:
        samples: shape (T,), float32, 16 kHz, not all zero.

    Returns:
        shape (T // 160 + 1, 40), float32.
    """
    level_db = 10.0 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-12)
    gain = 10.0 ** (max(GE2E_LEVEL_DBFS - level_db, 0.0) / 20.0)
    padded = np.pad(samples * np.float32(gain), _FFT // 2)
    framed = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    power = np.abs(np.fft.rfft(framed * hann(_FFT), axis=1)) ** 2
    return np.asarray(power.astype(np.float32) @ ge2e_filters(), np.float32)


class Ge2e(nn.Module):
    """The three-layer LSTM and its projection, frozen.

    Args:
        weights: Resemblyzer's `pretrained.pt`.

    Raises:
        BadWeights: the file does not hold the expected tensors.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.lstm = nn.LSTM(GE2E_BANDS, GE2E_SIZE, 3, batch_first=True)
        self.linear = nn.Linear(GE2E_SIZE, GE2E_SIZE)
        state = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
        missing = self.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise BadWeights(
                "Resemblyzer's weights must hold the GE2E encoder.",
                f"{weights.name} without {missing[0]}",
                "Install resemblyzer 0.1.4.",
            )
        self.requires_grad_(False).eval()

    def forward(self, mel: Tensor) -> Tensor:
        """Return unit vectors (B, 256) of mel power (B, F, 40)."""
        _, (hidden, _) = self.lstm(mel)
        raw = torch.relu(self.linear(hidden[-1]))
        return fn.normalize(raw, dim=1)

    def embed(self, samples: FloatArray) -> NDArray[np.float32]:
        """Mean of the partial vectors over windows of 1.6 s, every 0.8 s, as Resemblyzer does.

        Args:
            samples: shape (T,), float32, 16 kHz, not all zero. Silences are not trimmed.

        Returns:
            shape (256,), float32, unit norm.
        """
        mel = ge2e_mel(samples)
        if len(mel) < GE2E_FRAMES:
            mel = np.pad(mel, ((0, GE2E_FRAMES - len(mel)), (0, 0)))
        starts = [*range(0, len(mel) - GE2E_FRAMES + 1, GE2E_FRAMES // 2)]
        windows = np.stack([mel[s : s + GE2E_FRAMES] for s in starts])
        with torch.inference_mode():
            mean = self(torch.from_numpy(windows)).mean(0)
        return np.asarray((mean / mean.norm()).numpy(), np.float32)


def load_ge2e() -> Ge2e:
    """Load the encoder of the installed `resemblyzer`.

    Raises:
        UsageError: it is not installed.
        BadWeights: its weights are not the expected ones.
    """
    weights = find_ge2e_weights()
    if weights is None:
        raise UsageError(
            "The GE2E encoder is read from the package `resemblyzer`.",
            "it is not installed",
            "Run `pip install --no-deps resemblyzer==0.1.4`.",
        )
    return Ge2e(weights)
