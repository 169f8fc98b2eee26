"""What keeps converted speech voiced where its source is.

Two things take the voice out of frames that should have one. Where voicing is weak a decoder puts
noise in its place: `keep_voiced` bounds the share of the noise. And a period that is compared with
the next one needs two of them, so that a deep voice is heard later than a high one that begins at
the same time: `early_onsets` lets it begin a frame earlier.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from chorister.shared.types import FloatArray
from chorister.shared.voice.features import mel_edges_hz
from chorister.shared.voice.vocoder import LOUDEST_LOG, QUIETEST_LOG, band_to_bin

# Share of a voiced frame's power that may be noise (-12 dB), and how far its low bands go down.
LARGEST_NOISE_SHARE = 0.06
# Pitch is heard below here; hissing above stays: it is what tells a voiced s from a hum.
_LOW_HZ = 1000.0
_LOW_WIDTH_HZ = 200.0
# A voice whose period is longer than 120 samples begins a frame earlier.
EARLY_BELOW_HZ = 133.0


def keep_voiced(harmonic: Tensor, noise: Tensor, f0_hz: Tensor) -> tuple[Tensor, Tensor]:
    """Moves power from the noise to the harmonics in voiced frames that are mostly noise.

    Where noise has more than `LARGEST_NOISE_SHARE` of a voiced frame's power, its bands below 1 kHz
    go down alike until it has not, at most to that share of themselves. What a band loses its
    harmonics get, so that each band's power is kept.

    Args:
        harmonic: shape (B, F, 80), log magnitude of the pulses' filter.
        noise: shape (B, F, 80), log magnitude of the noise's filter.
        f0_hz: shape (B, F), 0 where unvoiced.

    Returns:
        both envelopes, shape (B, F, 80) each; unvoiced frames and those with little noise are
        the same to the last bit.
    """
    bins, low = (torch.from_numpy(row).to(noise.device) for row in _bands())
    voice = torch.exp(2.0 * harmonic.clamp(QUIETEST_LOG, LOUDEST_LOG))
    breath = torch.exp(2.0 * noise.clamp(QUIETEST_LOG, LOUDEST_LOG))
    deep = (breath * bins * low).sum(2, keepdim=True)
    hiss = (breath * bins).sum(2, keepdim=True)
    allowed = LARGEST_NOISE_SHARE * ((voice + breath) * bins).sum(2, keepdim=True)
    left = ((allowed - (hiss - deep)) / deep).clamp(LARGEST_NOISE_SHARE, 1.0)
    kept = 1.0 - low * (1.0 - left)
    noisy = (f0_hz.unsqueeze(2) > 0) & (hiss > allowed)
    return (
        torch.where(noisy, 0.5 * torch.log(voice + breath * (1.0 - kept)), harmonic),
        torch.where(noisy, noise + 0.5 * torch.log(kept), noise),
    )


@cache
def _bands() -> tuple[FloatArray, FloatArray]:
    """For each mel band how many bins it stands for, and 1 below 1 kHz to 0 above: (80,) each."""
    centres_hz = mel_edges_hz()[1:-1]
    low = 1.0 / (1.0 + np.exp((centres_hz - _LOW_HZ) / _LOW_WIDTH_HZ))
    return band_to_bin().sum(axis=1), low.astype(np.float32)


def early_onsets(f0_hz: Tensor) -> Tensor:
    """Lets a deep voice begin a frame earlier.

    Args:
        f0_hz: shape (B, F), the pitch to speak with, 0 where unvoiced.

    Returns:
        shape (B, F): an unvoiced frame before a voiced one below 133 Hz gets that one's pitch.
    """
    after_last = torch.zeros_like(f0_hz[:, :1])
    return begun_early(f0_hz, torch.cat([f0_hz[:, 1:], after_last], dim=1))


def begun_early(f0_hz: Tensor, following_hz: Tensor) -> Tensor:
    """`early_onsets` where the pitch of the next frame is given, all of shape (B, F)."""
    early = (f0_hz <= 0) & (following_hz > 0) & (following_hz < EARLY_BELOW_HZ)
    return torch.where(early, following_hz, f0_hz)
