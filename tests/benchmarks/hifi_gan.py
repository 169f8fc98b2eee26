"""HiFi-GAN's generator at its published sizes, with random weights: a yardstick for speed.

Architecture and sizes: Kong, Kim and Bae, HiFi-GAN, NeurIPS 2020 (arXiv 2010.05646), section 2.2
and appendix A.1, and the authors' config_v1 to v3.json; written anew from these. Speed does not
depend on what the weights are. The published generators read 80 mel bands every 256 samples at
22.05 kHz; many voice converters end in one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

MEL_BANDS = 80
RATE_HZ = 22_050
HOP_SAMPLES = 256
_SLOPE = 0.1


@dataclass(frozen=True, slots=True)
class Size:
    """A published configuration.

    Attributes:
        channels: of the first layer; each upsampling halves them.
        upsampling: factor of each transposed convolution; its kernel is twice that.
        kernels: of the residual blocks that follow each upsampling, in parallel.
        dilations: of each block's convolutions, a tuple for each kernel.
        paired: whether a convolution without dilation follows each one.
        published: parameters by the paper's table 1.
    """

    channels: int
    upsampling: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    paired: bool
    published: float


_THRICE = ((1, 3, 5),) * 3
SIZES = {
    "V1": Size(512, (8, 8, 2, 2), (3, 7, 11), _THRICE, True, 13.92e6),
    "V2": Size(128, (8, 8, 2, 2), (3, 7, 11), _THRICE, True, 0.92e6),
    "V3": Size(256, (8, 8, 4), (3, 5, 7), ((1, 2), (2, 6), (3, 12)), False, 1.46e6),
}


class Residual(nn.Module):
    """Dilated convolutions, each with a way around it."""

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], paired: bool
    ) -> None:
        super().__init__()
        # The extra convolution of a pair has no dilation.
        self.steps = nn.ModuleList(
            nn.ModuleList(
                nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel // 2))
                for d in ((dilation, 1) if paired else (dilation,))
            )
            for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, T)."""
        for step in self.steps:
            y = x
            assert isinstance(step, nn.ModuleList)
            for conv in step:
                y = conv(nn.functional.leaky_relu(y, _SLOPE))
            x = x + y
        return x


class Generator(nn.Module):
    """Log-mel to samples: (B, 80, F) to (B, 1, F * 256).

    Args:
        size: one of `SIZES`.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels = size.channels
        self.enter = nn.Conv1d(MEL_BANDS, channels, 7, padding=3)
        self.rises, self.blocks = nn.ModuleList(), nn.ModuleList()
        for factor in size.upsampling:
            rise = nn.ConvTranspose1d(
                channels, channels // 2, 2 * factor, factor, padding=factor // 2
            )
            channels //= 2
            self.rises.append(rise)
            self.blocks.append(
                nn.ModuleList(
                    Residual(channels, kernel, dilations, size.paired)
                    for kernel, dilations in zip(size.kernels, size.dilations, strict=True)
                )
            )
        self.leave = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Renders a batch."""
        x = self.enter(log_mel)
        for rise, blocks in zip(self.rises, self.blocks, strict=True):
            x = rise(nn.functional.leaky_relu(x, _SLOPE))
            assert isinstance(blocks, nn.ModuleList)
            x = sum(block(x) for block in blocks) / len(blocks)
        y: Tensor = torch.tanh(self.leave(nn.functional.leaky_relu(x)))
        return y


def generator(name: str) -> Generator:
    """A generator of a published size; it checks that it has the published number of parameters.

    Raises:
        ValueError: it has not.
    """
    size = SIZES[name]
    made = Generator(size).eval().requires_grad_(False)
    count = sum(parameter.numel() for parameter in made.parameters())
    if abs(count - size.published) > 0.01e6:
        raise ValueError(f"HiFi-GAN {name} has {count} parameters, not {size.published:.0f}")
    return made
