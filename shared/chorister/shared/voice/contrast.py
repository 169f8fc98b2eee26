"""Gives an envelope back the contrast that a decoder takes from it.

A decoder that is not sure says the mean of what it thinks possible: its envelopes are flatter than
speech, most of all in their finer ripples, which are formants. Each cosine component of the
log-mel is therefore multiplied by a gain, as parametric synthesis does with the variance of its
parameters (Toda and Tokuda 2007); here the whole component and not what it deviates from its mean,
so that the mean's own ripples grow as well, which was measured to be no worse.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from chorister.shared.types import MEL_BANDS
from chorister.shared.voice.recall import resolved_bands, sound_of


def restore_contrast(
    harmonic: Tensor, noise: Tensor, f0_hz: Tensor, gains: Tensor
) -> tuple[Tensor, Tensor]:
    """Multiplies the ripples of what two envelopes sound like.

    Args:
        harmonic: shape (B, F, 80), log magnitude of the pulses' filter.
        noise: shape (B, F, 80), log magnitude of the noise's filter.
        f0_hz: shape (B, F), 0 where unvoiced.
        gains: shape (80,), of the cosine components; 1 changes nothing.

    Returns:
        both envelopes, shape (B, F, 80) each, moved alike: in no band does the one gain on the
        other. The two lowest bands are the same, those up to the tenth are moved in part.
    """
    ripples = ripples_of().to(gains.device)
    change = (ripples.T * (gains - 1.0)) @ ripples
    sound = sound_of(torch.cat([harmonic, noise], dim=2), f0_hz)
    # The lowest bands hold single harmonics: what is loud there is the pitch's.
    moved = resolved_bands().to(sound.device) * (sound @ change)
    return harmonic + moved, noise + moved


@cache
def ripples_of() -> Tensor:
    """Orthonormal cosines over the bands (DCT-II), a row each: shape (80, 80)."""
    bands = np.arange(MEL_BANDS)
    rows = np.sqrt(2.0 / MEL_BANDS) * np.cos(np.pi * np.outer(bands, bands + 0.5) / MEL_BANDS)
    rows[0] *= np.sqrt(0.5)
    return torch.from_numpy(rows.astype(np.float32))
