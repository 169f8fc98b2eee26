"""The best copy that the vocoder alone can make: what no decoder in front of it can beat by much.

The vocoder has no parameters. Its two envelopes are fitted to one recording by gradient descent on
the model's own reconstruction loss, starting from the recording's log-mel.
"""

from __future__ import annotations

import numpy as np
import torch

from chorister.shared.types import FeatureSequence, FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.vocoder import Vocoder

STEPS = 60
_RATE = 0.15
# Log magnitude of unit-variance noise under the analysis window: the root of half of pi times the
# sum of its squares (150), which is the mean of a Rayleigh distribution.
_SOURCE_LOG = float(np.log(np.sqrt(np.pi / 4.0 * 150.0)))
_START_BELOW = 1.5


def copy_by_vocoder(
    features: FeatureSequence, samples: FloatArray, steps: int = STEPS
) -> FloatArray:
    """Fit the vocoder's envelopes to a recording and render them.

    Args:
        features: of the recording, F frames, F at least 8.
        samples: shape (T,), the recording, T at least F * 160.
        steps: of gradient descent.

    Returns:
        shape (F * 160,), float32, 16 kHz; the same for the same input.
    """
    vocoder = Vocoder()
    length = len(features.f0_hz) * HOP_SAMPLES
    wanted = torch.from_numpy(samples[None, :length])
    f0_hz = torch.from_numpy(features.f0_hz[None])
    start = torch.from_numpy(features.log_mel[None]) - _SOURCE_LOG
    voiced = (f0_hz > 0)[..., None]
    harmonic = start.clone().requires_grad_()
    noise = torch.where(voiced, start - _START_BELOW, start).requires_grad_()
    optimiser = torch.optim.Adam([harmonic, noise], _RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        hiss = torch.randn((1, length), generator=generator)
        optimiser.zero_grad()
        loss = reconstruction_loss(vocoder(harmonic, noise, f0_hz, hiss), wanted).sum()
        torch.autograd.backward(loss)
        optimiser.step()
    with torch.inference_mode():
        hiss = torch.randn((1, length), generator=generator)
        copied = vocoder(harmonic, noise, f0_hz, hiss)[0]
    return np.asarray(copied.numpy(), np.float32)
