"""What the vocoder alone can do: a copy, and a conversion without any learning.

The vocoder has no parameters. For the copy its two envelopes are fitted to one recording by
gradient descent on the model's own reconstruction loss, starting from the recording's log-mel: no
decoder in front of it can beat that by much. The conversion matches F0 and the log-mel's statistics
to the target's, as voice changers did before there were voice models: what a model has to beat.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from chorister.shared.types import FeatureSequence, FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import move_pitch
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.vocoder import Vocoder

STEPS = 100
_RATE = 0.15
# Log magnitude of unit-variance noise under the analysis window: the root of half of pi times the
# sum of its squares (150), which is the mean of a Rayleigh distribution.
_SOURCE_LOG = float(np.log(np.sqrt(np.pi / 4.0 * 150.0)))
_START_BELOW = 1.5


def envelopes(log_mel: FloatArray, f0_hz: FloatArray) -> tuple[Tensor, Tensor]:
    """Envelopes of pulses and noise that roughly give a log-mel.

    Args:
        log_mel: shape (F, 80).
        f0_hz: shape (F,), 0 where unvoiced.

    Returns:
        shape (1, F, 80) each.
    """
    harmonic = torch.from_numpy(log_mel[None]) - _SOURCE_LOG
    voiced = torch.from_numpy(f0_hz > 0)[None, :, None]
    return harmonic, torch.where(voiced, harmonic - _START_BELOW, harmonic)


def match_statistics(
    features: FeatureSequence, source: SpeakerProfile, target: SpeakerProfile
) -> FloatArray:
    """Convert by moving F0 and, in every mel band, mean and spread to the target's.

    Args:
        features: of the source's speech, F frames.
        source: the source speaker's enrolment.
        target: the target speaker's enrolment.

    Returns:
        shape (F * 160,), float32, 16 kHz; the same for the same input.
    """
    f0_hz = move_pitch(features.f0_hz, source, target)
    height = (features.log_mel - source.mel_mean) / source.mel_std
    harmonic, noise = envelopes(height * target.mel_std + target.mel_mean, f0_hz)
    return speak(harmonic, noise, f0_hz)


def fit_envelopes(
    features: FeatureSequence, samples: FloatArray, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Fit the vocoder's envelopes to a recording.

    Args:
        features: of the recording, F frames, F at least 8.
        samples: shape (T,), the recording, T at least F * 160.
        steps: of gradient descent; the rate falls to a tenth along a cosine.

    Returns:
        log magnitudes of pulses and noise, shape (1, F, 80) each; the same for the same input.
    """
    vocoder = Vocoder()
    length = len(features.f0_hz) * HOP_SAMPLES
    wanted = torch.from_numpy(samples[None, :length])
    f0_hz = torch.from_numpy(features.f0_hz[None])
    harmonic, noise = envelopes(features.log_mel, features.f0_hz)
    harmonic.requires_grad_()
    noise.requires_grad_()
    optimiser = torch.optim.Adam([harmonic, noise], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1), _RATE / 10.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        hiss = draw_hiss((1, length), generator)
        optimiser.zero_grad()
        loss = reconstruction_loss(vocoder(harmonic, noise, f0_hz, hiss), wanted).sum()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return harmonic.detach(), noise.detach()


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
    harmonic, noise = fit_envelopes(features, samples, steps)
    return speak(harmonic, noise, features.f0_hz)


def speak(harmonic: Tensor, noise: Tensor, f0_hz: FloatArray) -> FloatArray:
    """Render envelopes.

    Args:
        harmonic: shape (1, F, 80), log magnitude of the pulses' filter.
        noise: shape (1, F, 80), log magnitude of the noise's filter.
        f0_hz: shape (F,), 0 where unvoiced.

    Returns:
        shape (F * 160,), float32, 16 kHz; the same for the same input.
    """
    generator = torch.Generator().manual_seed(0)
    hiss = draw_hiss((1, len(f0_hz) * HOP_SAMPLES), generator)
    with torch.inference_mode():
        wav = Vocoder()(harmonic, noise, torch.from_numpy(f0_hz[None]), hiss)[0]
    return np.asarray(wav.numpy(), np.float32)
