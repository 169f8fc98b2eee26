"""The building block of encoder and decoder: a ConvNeXt block over time with FiLM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The recurrent layer is narrower than the stream, so that a block has about as many values.
_GRU_SHARE = 8


class TimeConv(nn.Module):
    """Depthwise convolution over time on tensors of shape (B, F, C), zeros beyond both ends.

    Args:
        channels: C.
        kernel: number of frames that it sees.
        ahead: how many of them lie after the frame that it computes, 0 to kernel - 1.
    """

    def __init__(self, channels: int, kernel: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.behind = kernel - 1 - ahead
        # As a two-dimensional convolution: oneDNN's one-dimensional backward is 4 times slower.
        self.conv = nn.Conv2d(channels, channels, (1, kernel), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filters each channel: (B, F, C) to (B, F, C)."""
        return self.inner(nn.functional.pad(x, (0, 0, self.behind, self.ahead)))

    def inner(self, x: Tensor) -> Tensor:
        """The frames that need nothing beyond the ends: (B, F, C) to (B, F - kernel + 1, C)."""
        y: Tensor = self.conv(x.transpose(1, 2).unsqueeze(2))
        return y.squeeze(2).transpose(1, 2)


class TimeGru(nn.Module):
    """Recurrence over time in both directions, on tensors of shape (B, F, C).

    What `TimeConv` does with a few frames on each side, this may do with many more.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // _GRU_SHARE, 1)
        self.gru = nn.GRU(channels, hidden, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes frames: (B, F, C) to (B, F, C)."""
        y: Tensor = self.leave(self.gru(x)[0])
        return y


class Bottleneck(nn.Module):
    """An adapter: down, GELU, up; adds nothing until trained.

    Args:
        channels: C of the stream that it adds to.
        rank: width of its middle, at least 1.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, rank)
        self.up = nn.Linear(rank, channels)
        nn.init.normal_(self.down.weight, std=channels**-0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """What to add to the stream: (B, F, C) to (B, F, C)."""
        y: Tensor = self.up(nn.functional.gelu(self.down(x), approximate="tanh"))
        return y


class Block(nn.Module):
    """Depthwise convolution, LayerNorm, FiLM, two-layer perceptron, residual.

    Args:
        channels: C.
        kernel: frames that the convolution sees, odd.
        expansion: width of the perceptron's middle as a multiple of C.
        condition: size of the vector that scales and shifts; 0 for none.
        ahead: how many of those frames lie ahead; None for half of them.
        recurrent: mix frames by `TimeGru` instead of a convolution.
    """

    adapter: Bottleneck | None

    def __init__(
        self,
        channels: int,
        kernel: int,
        expansion: int,
        condition: int = 0,
        ahead: int | None = None,
        *,
        recurrent: bool = False,
    ) -> None:
        super().__init__()
        self.conv: TimeConv | TimeGru = (
            TimeGru(channels)
            if recurrent
            else TimeConv(channels, kernel, kernel // 2 if ahead is None else ahead)
        )
        self.norm = nn.LayerNorm(channels)
        self.film = nn.Linear(condition, 2 * channels) if condition else None
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        self.adapter = None
        nn.init.normal_(self.narrow.weight, std=0.02)
        nn.init.zeros_(self.narrow.bias)
        if self.film is not None:
            nn.init.normal_(self.film.weight, std=0.02)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Refines the stream.

        Args:
            x: shape (B, F, C).
            condition: shape (B, S), where the block was made with FiLM.

        Returns:
            shape (B, F, C).
        """
        return self.refine(x, self.conv(x), condition)

    def refine(self, x: Tensor, filtered: Tensor, condition: Tensor | None = None) -> Tensor:
        """What follows the convolution, frame by frame.

        Args:
            x: shape (B, F, C).
            filtered: shape (B, F, C), the convolution of x.
            condition: shape (B, S), as in `forward`.

        Returns:
            shape (B, F, C).
        """
        y = self.norm(filtered)
        if self.film is not None and condition is not None:
            scale, shift = self.film(condition).unsqueeze(1).chunk(2, dim=2)
            y = torch.addcmul(shift, y, 1.0 + scale)
        y = self.narrow(nn.functional.gelu(self.widen(y), approximate="tanh"))
        if self.adapter is not None:
            y = y + self.adapter(y)
        out: Tensor = x + y
        return out
