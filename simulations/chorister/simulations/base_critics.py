"""Networks that only judge during training: whose voice it is, and whether it is real speech."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.voice.frames import hann
from chorister.shared.voice.torch_mel import LogMel
from chorister.simulations.ge2e import (
    GE2E_FRAMES,
    GE2E_LEVEL_DBFS,
    Ge2e,
    ge2e_filters,
)

_GE2E_WINDOW = 400
_GE2E_HOP = 160
_POWER_FLOOR = 1e-9
_CHANNELS = 24
_KERNEL = (3, 9)
_SLOPE = 0.2
_MAGNITUDE_FLOOR = 1e-5
_RESOLUTION = (512, 128)


class TeacherVectors(nn.Module):
    """GE2E's vectors of generated speech, differentiable down to the samples.

    Args:
        encoder: the frozen teacher.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, encoder: Ge2e) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("window", torch.from_numpy(hann(_GE2E_WINDOW)), persistent=False)
        self.register_buffer("filters", torch.from_numpy(ge2e_filters()), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Names the voices of a batch: (B, T), T at least 1.6 s, to (B, 256) of unit norm."""
        level_db = 10.0 * torch.log10(samples.square().mean(dim=1, keepdim=True) + 1e-12)
        gain = 10.0 ** ((GE2E_LEVEL_DBFS - level_db).clamp(min=0.0) / 20.0)
        padded = nn.functional.pad(samples * gain, (_GE2E_WINDOW // 2, _GE2E_WINDOW // 2))
        framed = padded.unfold(1, _GE2E_WINDOW, _GE2E_HOP)[:, :GE2E_FRAMES]
        spectrum = torch.fft.rfft(framed * self.window)
        power = spectrum.real.square() + spectrum.imag.square() + _POWER_FLOOR
        vectors: Tensor = self.encoder(power @ self.filters)
        return vectors


class _Critic(nn.Module):
    """Convolutions over a log spectrogram, each halving time and frequency.

    Args:
        first_stride: in time and frequency, of the first convolution.
    """

    def __init__(self, first_stride: tuple[int, int]) -> None:
        super().__init__()
        strides: Sequence[tuple[int, int]] = (first_stride, (2, 2), (2, 2))
        self.layers = nn.ModuleList()
        channels = 1
        for stride in strides:
            padding = (_KERNEL[0] // 2, _KERNEL[1] // 2)
            self.layers.append(nn.Conv2d(channels, _CHANNELS, _KERNEL, stride, padding))
            channels = _CHANNELS
        self.verdict = nn.Conv2d(channels, 1, 3, 1, 1)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Hidden layers and, last, the verdicts of (B, frames, bands)."""
        x = picture.unsqueeze(1)
        seen = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), _SLOPE)
            seen.append(x)
        return [*seen, self.verdict(x)]


class Critics(nn.Module):
    """Two views of the same speech: log-mel, and a linear spectrogram with sharper frequency.

    After the multi-resolution spectrogram discriminators of Jang et al., UnivNet, 2021, with least
    squares (Mao et al., 2017), made small enough for one CPU core.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel()
        self.by_mel = _Critic((1, 2))
        self.by_spectrum = _Critic((2, 4))
        window = torch.from_numpy(np.asarray(hann(_RESOLUTION[0])))
        self.register_buffer("window", window, persistent=False)

    def forward(self, samples: Tensor) -> list[list[Tensor]]:
        """What each critic sees in a batch (B, T)."""
        framed = samples.unfold(1, _RESOLUTION[0], _RESOLUTION[1]) * self.window
        spectrum = torch.fft.rfft(framed)
        power = spectrum.real.square() + spectrum.imag.square()
        picture = 0.5 * (power + _MAGNITUDE_FLOOR).log()
        mel: Tensor = self.log_mel(samples)
        return [self.by_mel(0.4 * (mel + 4.0)), self.by_spectrum(0.4 * (picture + 3.0))]


def critic_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """What the critics minimise: 1 for real speech, 0 for generated."""
    terms = [
        (of_real[-1] - 1.0).square().mean() + of_fake[-1].square().mean()
        for of_real, of_fake in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).sum()


def fooling_loss(fake: list[list[Tensor]]) -> Tensor:
    """What the model minimises: generated speech taken for real."""
    return torch.stack([(of_fake[-1] - 1.0).square().mean() for of_fake in fake]).sum()


def matching_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of the critics' hidden layers for the same words."""
    terms = [
        (a.detach() - b).abs().mean()
        for of_real, of_fake in zip(real, fake, strict=True)
        for a, b in zip(of_real[:-1], of_fake[:-1], strict=True)
    ]
    return torch.stack(terms).mean()
