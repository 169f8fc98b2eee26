"""The analysis of `features` as a differentiable torch module, for losses on generated speech."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chorister.shared.voice.features import FFT_SAMPLES, MEL_FLOOR, WINDOW_SAMPLES, mel_filters
from chorister.shared.voice.frames import HOP_SAMPLES, hann

_POWER_FLOOR = 1e-14


class LogMel(nn.Module):
    """Log-mel of a batch, equal to `features.log_mel` row by row (to float32 rounding)."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.from_numpy(hann(WINDOW_SAMPLES)), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Analyses a batch of equal lengths.

        Args:
            samples: shape (B, T), 16 kHz, T a multiple of 160.

        Returns:
            shape (B, T // 160, 80).
        """
        edge = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
        framed = nn.functional.pad(samples, (edge, edge)).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
        spectrum = torch.fft.rfft(framed * self.window, FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = power.clamp_min(_POWER_FLOOR).sqrt()
        mel: Tensor = (magnitude @ self.filters).clamp_min(MEL_FLOOR).log()
        return mel
