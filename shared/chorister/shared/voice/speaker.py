"""Speaker encoder: a log-mel sequence to the 256-vector that names a voice.

A small convolutional network distilled from Resemblyzer's GE2E (docs/speaker_card.md). It reads the
same log-mel as the voice model, so gradients flow from a speaker-cosine loss to a decoder.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as fn
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import MEL_BANDS, FloatArray

SPEAKER_SIZE = 256
SPEAKER_FORMAT = "chorister-speaker-1"
SPEAKER_WEIGHTS = Path(__file__).parent / "weights" / "speaker.safetensors"
SPEAKER_SHA256 = "4496c41e0186eab0c8ee7301bb9d87bffefe36421c7d59466ce3dcdbeea64df9"
WINDOW_FRAMES = 160
WINDOW_HOP_FRAMES = 80
MIN_FRAMES = 20
_WIDTH = 128
_BLOCKS = 5
_MEL_SCALE = 2.5
_ACTIVE_RANGE = 4.0
_MIN_ACTIVE = 0.4


class _Block(nn.Module):
    """ConvNeXt block (Liu et al., CVPR 2022): depthwise convolution, norm, two-layer perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.contract = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, F', C) -> (B, F', C)
        mixed = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        change: Tensor = self.contract(fn.gelu(self.expand(self.norm(mixed))))
        return x + change


class SpeakerEncoder(nn.Module):
    """ConvNeXt blocks at 20 ms and attentive statistics pooling (Okabe et al., Interspeech 2018).

    The mean log-mel of each sequence is taken out first: the vector does not depend on the level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(MEL_BANDS, _WIDTH, 5, stride=2, padding=2)
        self.stem_norm = nn.LayerNorm(_WIDTH)
        self.blocks = nn.ModuleList(_Block(_WIDTH) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.attention = nn.Sequential(
            nn.Linear(_WIDTH, _WIDTH // 2), nn.Tanh(), nn.Linear(_WIDTH // 2, _WIDTH)
        )
        self.project = nn.Linear(2 * _WIDTH, SPEAKER_SIZE)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Unit speaker vectors, differentiable with respect to the log-mel.

        Args:
            log_mel: shape (B, F, 80), natural logarithm of mel magnitudes, F at least 20.

        Returns:
            shape (B, 256), unit norm.
        """
        x = (log_mel - log_mel.mean(dim=(1, 2), keepdim=True)) / _MEL_SCALE
        x = self.stem_norm(self.stem(x.transpose(1, 2)).transpose(1, 2))  # (B, F/2, C)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        weight = torch.softmax(self.attention(x), dim=1)
        mean = (weight * x).sum(1)
        deviation = ((weight * x.square()).sum(1) - mean.square()).clamp_min(1e-5).sqrt()
        return fn.normalize(self.project(torch.cat((mean, deviation), 1)), dim=1)

    def embed_windows(self, log_mel: FloatArray) -> FloatArray:
        """Partial vectors of windows of 1.6 s, one every 0.8 s, mostly silent windows left out.

        Args:
            log_mel: shape (F, 80), float32, F at least 20 (0.2 s).

        Returns:
            shape (N, 256), float32, unit rows, N at least 1; one row for a sequence under 1.6 s.

        Raises:
            BadAudio: the sequence is too short, of a wrong shape or not finite.
        """
        _check(log_mel)
        starts = list(range(0, max(len(log_mel) - WINDOW_FRAMES, 0) + 1, WINDOW_HOP_FRAMES))
        if len(log_mel) > starts[-1] + WINDOW_FRAMES:
            starts.append(len(log_mel) - WINDOW_FRAMES)
        level = log_mel.mean(1)
        active = level > np.quantile(level, 0.95) - _ACTIVE_RANGE
        share = np.array([active[start : start + WINDOW_FRAMES].mean() for start in starts])
        kept = share >= min(_MIN_ACTIVE, float(share.max()))
        rows = [
            log_mel[s : s + WINDOW_FRAMES] for s, keep in zip(starts, kept, strict=True) if keep
        ]
        parameter = self.project.weight
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(rows)).to(parameter.device, parameter.dtype)
            parts = [self(batch[at : at + 64]) for at in range(0, len(batch), 64)]
            vectors = torch.cat(parts)
        return np.asarray(vectors.float().cpu().numpy(), np.float32)

    def embed(self, log_mel: FloatArray) -> FloatArray:
        """Speaker vector of one utterance: the normalised mean of its partial vectors.

        Args:
            log_mel: shape (F, 80), float32, F at least 20 (0.2 s).

        Returns:
            shape (256,), float32, unit norm; the same for the same input.

        Raises:
            BadAudio: the sequence is too short, of a wrong shape or not finite.
        """
        mean = self.embed_windows(log_mel).mean(0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _check(log_mel: FloatArray) -> None:
    if log_mel.ndim != 2 or log_mel.shape[1] != MEL_BANDS or len(log_mel) < MIN_FRAMES:
        raise BadAudio(
            f"A speaker vector needs at least {MIN_FRAMES} frames of {MEL_BANDS} log-mel bands.",
            f"shape {log_mel.shape}",
            "Use a recording of at least 0.2 s.",
        )
    if not np.isfinite(log_mel).all():
        raise BadAudio(
            "A log-mel must be finite.",
            f"{int((~np.isfinite(log_mel)).sum())} values that are not",
            "Check the recording for NaN or infinite samples.",
        )


def load_speaker_encoder(path: Path | None = None) -> SpeakerEncoder:
    """Load the frozen speaker encoder that the package ships, or another file of its format.

    Args:
        path: a safetensors file; None for the shipped weights, whose digest is checked.

    Returns:
        the encoder, float32, on the CPU, in evaluation mode, without gradients to its weights.
        Shared between calls for the shipped weights: copy it before changing it.

    Raises:
        BadWeights: the file is missing, has a wrong digest, format or shape.
    """
    return _load_shipped() if path is None else _read(path, expected_sha256=None)


@cache
def _load_shipped() -> SpeakerEncoder:
    return _read(SPEAKER_WEIGHTS, SPEAKER_SHA256)


def _read(path: Path, expected_sha256: str | None) -> SpeakerEncoder:
    rule = "The speaker encoder must be the file that this version was built with."
    advice = "Reinstall the package, or train one with `chorister train-speaker`."
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if expected_sha256 is not None and digest != expected_sha256:
            raise BadWeights(rule, f"{path.name} with digest {digest[:16]}...", advice)
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("format", "no format")
            if found != SPEAKER_FORMAT:
                raise BadWeights(rule, f"{path.name} of format {found!r}", advice)
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        encoder = SpeakerEncoder()
        encoder.load_state_dict(state)
    except OSError as error:
        raise BadWeights(rule, f"{path.name}, {error.strerror or error}", advice) from error
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadWeights(rule, f"{path.name}, unusable ({reason})", advice) from error
    return encoder.requires_grad_(False).eval()
