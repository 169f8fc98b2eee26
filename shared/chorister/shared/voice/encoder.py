"""What is said, without who says it: log-mel to a few content channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chorister.shared.types import MEL_BANDS
from chorister.shared.voice.blocks import Block

_SMALLEST_SPREAD = 0.1


class ContentEncoder(nn.Module):
    """ConvNeXt blocks and a narrow, normalised bottleneck.

    Args:
        content: channels of the bottleneck.
        width: channels of the stream.
        blocks: number of blocks.
        kernel: frames that each block's convolution sees, odd.
        expansion: width of each block's perceptron as a multiple of `width`.
        ahead: frames that each block sees ahead; () for half of its kernel everywhere.
    """

    def __init__(
        self,
        content: int,
        width: int,
        blocks: int,
        kernel: int,
        expansion: int,
        ahead: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(MEL_BANDS, width)
        self.blocks = nn.ModuleList(
            Block(width, kernel, expansion, ahead=frames)
            for frames in ahead or (kernel // 2,) * blocks
        )
        self.leave = nn.Linear(width, content)
        self.norm = nn.LayerNorm(content, elementwise_affine=False)

    def forward(self, log_mel: Tensor, mel_mean: Tensor, mel_std: Tensor) -> Tensor:
        """Encodes a batch.

        Args:
            log_mel: shape (B, F, 80).
            mel_mean: shape (B, 80), the source speaker's enrolment mean.
            mel_std: shape (B, 80), the source speaker's enrolment spread.

        Returns:
            shape (B, F, content), each frame of mean 0 and variance 1.
        """
        x = self.begin(log_mel, mel_mean, mel_std)
        for block in self.blocks:
            x = block(x)
        return self.finish(x)

    def begin(self, log_mel: Tensor, mel_mean: Tensor, mel_std: Tensor) -> Tensor:
        """What the first block reads, shape (B, F, width); arguments as in `forward`."""
        spread = mel_std.clamp(min=_SMALLEST_SPREAD)
        x: Tensor = self.enter((log_mel - mel_mean.unsqueeze(1)) / spread.unsqueeze(1))
        return x

    def finish(self, x: Tensor) -> Tensor:
        """Content from what the last block gives: (B, F, width) to (B, F, content)."""
        y: Tensor = self.norm(self.leave(x))
        return y


def with_noise(content: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Content plus Gaussian noise, so that training keeps only what survives it.

    Args:
        content: shape (B, F, content).
        level: standard deviation of the noise.
        generator: source of the noise, on any device.
    """
    noise = torch.randn(content.shape, generator=generator, device=generator.device)
    return content + level * noise.to(content.device)
