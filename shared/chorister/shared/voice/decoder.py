"""Content, pitch and a speaker to the two envelopes that the vocoder renders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chorister.shared.types import MEL_BANDS
from chorister.shared.voice.adapter_spec import DIRECTIONS
from chorister.shared.voice.blocks import Block
from chorister.shared.voice.recall import Recall

VECTOR_SIZE = 256
CONDITION_SIZE = 128
_PITCH_CHANNELS = 2
_PITCH_CENTRE = 5.0
_PITCH_SCALE = 2.0
# Level of the log envelopes before training: near that of speech under the vocoder's sources.
_FIRST_LEVEL = -5.0


def pitch_channels(f0_hz: Tensor) -> Tensor:
    """What the decoder sees of F0.

    Args:
        f0_hz: shape (B, F), 0 where unvoiced.

    Returns:
        shape (B, F, 2): 2 (log F0 - 5) where voiced, else 0; and 1 where voiced.
    """
    voiced = (f0_hz > 0).to(f0_hz.dtype)
    height = _PITCH_SCALE * (torch.log(f0_hz.clamp(min=1.0)) - _PITCH_CENTRE)
    return torch.stack([height * voiced, voiced], dim=2)


class SpeakerCondition(nn.Module):
    """Speaker vector and mel statistics to the 128 values that FiLM reads.

    The buffers hold mean and spread of the mel statistics over the training speakers.
    """

    centre: Tensor
    spread: Tensor
    offset: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(VECTOR_SIZE + 2 * MEL_BANDS, CONDITION_SIZE)
        self.register_buffer("centre", torch.zeros(2 * MEL_BANDS))
        self.register_buffer("spread", torch.ones(2 * MEL_BANDS))
        self.offset = None

    def forward(self, vector: Tensor, mel_mean: Tensor, mel_std: Tensor) -> Tensor:
        """Projects a batch of speakers.

        Args:
            vector: shape (B, 256), unit norm.
            mel_mean: shape (B, 80).
            mel_std: shape (B, 80).

        Returns:
            shape (B, 128), in (-1, 1) plus the personal offset, if one is attached.
        """
        statistics = (torch.cat([mel_mean, mel_std], dim=1) - self.centre) / self.spread
        # A unit vector of 256 values has values near 1/16.
        joined = torch.cat([16.0 * vector, statistics], dim=1)
        condition: Tensor = torch.tanh(self.project(joined))
        if self.offset is not None:
            condition = condition + self.offset(torch.ones_like(condition[:, :1]))
        return condition


class OutputShift(nn.Module):
    """The shared adapter: an envelope added to the outputs, and how it moves with the signal.

    The inputs of the trained layer are the last hidden layer's leading principal directions over
    the training data (fixed, in the base), so 160 values a direction can follow level and voicing.

    Args:
        rank: how many directions to follow, 0 to 8.
        placement: which envelopes it shifts: 'both', 'harmonic' or 'noise'.
    """

    def __init__(self, rank: int, placement: str = "both") -> None:
        super().__init__()
        self.rank = rank
        self.placement = placement
        width = MEL_BANDS * (2 if placement == "both" else 1)
        # A column of ones stands for the bias, so that rank 0 is a layer as well.
        self.shift = nn.Linear(1 + rank, width, bias=False)
        nn.init.zeros_(self.shift.weight)

    def forward(self, directions: Tensor) -> Tensor:
        """What to add to both envelopes: (B, F, 8) to (B, F, 160)."""
        ones = torch.ones_like(directions[:, :, :1])
        y: Tensor = self.shift(torch.cat([ones, directions[:, :, : self.rank]], dim=2))
        if self.placement == "both":
            return y
        still = torch.zeros_like(y)
        pair = (y, still) if self.placement == "harmonic" else (still, y)
        return torch.cat(pair, dim=2)


class Decoder(nn.Module):
    """ConvNeXt blocks with FiLM from the speaker.

    Args:
        content: channels of the content.
        width: channels of the stream.
        blocks: number of blocks.
        kernel: frames that each block's convolution sees, odd.
        expansion: width of each block's perceptron as a multiple of `width`.
        ahead: frames that each block sees ahead; () for half of its kernel everywhere.
        recurrent: whether the blocks mix frames by recurrence.
    """

    directions: Tensor
    directions_mean: Tensor
    contrast: Tensor
    shared: OutputShift | None

    def __init__(
        self,
        content: int,
        width: int,
        blocks: int,
        kernel: int,
        expansion: int,
        ahead: tuple[int, ...] = (),
        *,
        recurrent: bool = False,
    ) -> None:
        super().__init__()
        self.condition = SpeakerCondition()
        self.recall = Recall()
        self.enter = nn.Linear(content + _PITCH_CHANNELS, width)
        self.blocks = nn.ModuleList(
            Block(width, kernel, expansion, CONDITION_SIZE, frames, recurrent=recurrent)
            for frames in ahead or (kernel // 2,) * blocks
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 2 * MEL_BANDS)
        self.register_buffer("directions", torch.zeros(width, DIRECTIONS))
        self.register_buffer("directions_mean", torch.zeros(width))
        # Of the cosine components of what conversions sound like (`contrast.restore_contrast`).
        self.register_buffer("contrast", torch.ones(MEL_BANDS))
        self.shared = None
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.constant_(self.leave.bias, _FIRST_LEVEL)

    def hidden(self, content: Tensor, f0_hz: Tensor, condition: Tensor) -> Tensor:
        """The last hidden layer, shape (B, F, width)."""
        x = self.begin(content, f0_hz)
        for block in self.blocks:
            x = block(x, condition)
        y: Tensor = self.norm(x)
        return y

    def begin(self, content: Tensor, f0_hz: Tensor) -> Tensor:
        """What the first block reads, shape (B, F, width); arguments as in `forward`."""
        x: Tensor = self.enter(torch.cat([content, pitch_channels(f0_hz)], dim=2))
        return x

    def own_envelopes(self, hidden: Tensor, f0_hz: Tensor, recalled: Tensor | None) -> Tensor:
        """Both envelopes without the shared adapter, side by side, shape (B, F, 160).

        Args:
            hidden: shape (B, F, width), from `hidden`.
            f0_hz: shape (B, F), 0 where unvoiced.
            recalled: as in `forward`.
        """
        envelopes: Tensor = self.leave(hidden)
        return envelopes if recalled is None else self.recall.correct(envelopes, recalled, f0_hz)

    def forward(
        self, content: Tensor, f0_hz: Tensor, condition: Tensor, recalled: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Predicts the envelopes.

        Args:
            content: shape (B, F, content channels).
            f0_hz: shape (B, F), the pitch to speak with, 0 where unvoiced.
            condition: shape (B, 128), from `SpeakerCondition`.
            recalled: shape (B, F, 80), from `Recall`; None where a training does without it.

        Returns:
            log magnitudes of the harmonic and of the noise filter, shape (B, F, 80) each.
        """
        return self.envelopes(self.hidden(content, f0_hz, condition), f0_hz, recalled)

    def envelopes(
        self, hidden: Tensor, f0_hz: Tensor, recalled: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both envelopes, shape (B, F, 80) each; arguments as of `own_envelopes`."""
        envelopes = self.own_envelopes(hidden, f0_hz, recalled)
        if self.shared is not None:
            followed = (hidden - self.directions_mean) @ self.directions
            envelopes = envelopes + self.shared(followed)
        harmonic, noise = envelopes.chunk(2, dim=2)
        return harmonic, noise
