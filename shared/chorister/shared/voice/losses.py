"""Reconstruction loss, normalised within each example.

Nothing here averages over the batch: DP-SGD clips the gradient of one example, and a loss that
mixes examples (the usual batch-wide spectral convergence, for one) would break its sensitivity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chorister.shared.voice.features import mel_filters
from chorister.shared.voice.frames import hann

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256))
_POWER_FLOOR = 1e-6
_RELATIVE_WEIGHT = 0.5
_MEL_WEIGHT = 2.0
_SMALLEST_SUM = 1e-3


class SpectralLoss(nn.Module):
    """Multi-resolution STFT distance plus mel L1 at the longest window.

    For each of three resolutions: mean absolute difference of log magnitudes, plus half the sum of
    absolute differences over the sum of the true magnitudes (after Yamamoto et al., Parallel
    WaveGAN, ICASSP 2020); plus twice the mean absolute difference of 80 log-mel bands.
    """

    def __init__(self) -> None:
        super().__init__()
        for size, _ in RESOLUTIONS:
            self.register_buffer(f"window_{size}", torch.from_numpy(hann(size)), persistent=False)
        filters = torch.from_numpy(mel_filters(RESOLUTIONS[-1][0]))
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wav_hat: Tensor, wav: Tensor) -> Tensor:
        """Loss of each example, shape (B, T) twice to (B,); T at least 1024 samples."""
        total = torch.zeros(wav.shape[0], dtype=wav.dtype, device=wav.device)
        for size, hop in RESOLUTIONS:
            window = self.get_buffer(f"window_{size}")
            guess = _magnitude(wav_hat, window, hop)
            true = _magnitude(wav, window, hop)
            log_distance = (guess.log() - true.log()).abs().mean(dim=(1, 2))
            distance = (guess - true).abs().sum(dim=(1, 2))
            relative = distance / true.sum(dim=(1, 2)).clamp(min=_SMALLEST_SUM)
            total = total + log_distance + _RELATIVE_WEIGHT * relative
        # The last resolution's magnitudes serve the mel distance as well.
        filters = self.get_buffer("filters")
        mel = ((guess @ filters).log() - (true @ filters).log()).abs().mean(dim=(1, 2))
        loss: Tensor = total + _MEL_WEIGHT * mel
        return loss


def _magnitude(samples: Tensor, window: Tensor, hop: int) -> Tensor:
    """STFT magnitudes with a floor, shape (B, frames, bins)."""
    framed = samples.unfold(1, len(window), hop)
    spectrum = torch.fft.rfft(framed * window)
    power = spectrum.real.square() + spectrum.imag.square()
    magnitude: Tensor = (power + _POWER_FLOOR).sqrt()
    return magnitude


def reconstruction_loss(wav_hat: Tensor, wav: Tensor) -> Tensor:
    """`SpectralLoss` as a function.

    Args:
        wav_hat: shape (B, T), generated, T at least 1024 samples.
        wav: shape (B, T), true.

    Returns:
        shape (B,): each example's loss depends on that example alone.
    """
    loss: Tensor = SpectralLoss().to(wav.device)(wav_hat, wav)
    return loss
