"""The voice model as a step on a stream: everything that it remembers is a tensor, in and out.

    log-mel of frames t - c + 1 .. t -> encoder -> content of frames k - c + 1 .. k,  k = t - ahead
    content, F0 of the same frames   -> decoder -> envelopes
    pulses and noise between the centres of frames k and k + 1 -> grain k -> overlap-add -> samples

A block remembers the last kernel - 1 frames of its input: from them its convolution goes on, and
its residual is read with the right delay. Frames before the stream's first are zero in every
block, as the padding of the whole model has it, so both give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chorister.shared.types import SAMPLE_RATE_HZ
from chorister.shared.voice.blocks import Block
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.stream_weights import check_streams
from chorister.shared.voice.vocoder import OVERLAP_HOPS, Vocoder, overlapped

_HALF = HOP_SAMPLES // 2


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the network remembers between two steps, for one stream.

    Attributes:
        encoder: shape (blocks, kernel - 1, width), the encoder's last frames block by block.
        decoder: shape (blocks, kernel - 1, width), the decoder's.
        cycles: shape (1,), float64, the pulses' phase, in [-0.5, 0.5].
        pulses: shape (1, 160), the pulses that the next grain begins with.
        hiss: shape (1, 160), the noise that it begins with.
        tail: shape (1, 4, 160), what earlier grains add to the next samples.
    """

    encoder: Tensor
    decoder: Tensor
    cycles: Tensor
    pulses: Tensor
    hiss: Tensor
    tail: Tensor


class StreamNetwork(nn.Module):
    """Encoder, decoder and vocoder of a streaming model, for one target.

    Args:
        model: a streaming model with its adapters attached.
        condition: shape (1, 128), of the target, from `SpeakerCondition`.
        as_products: as in `Vocoder`.

    Raises:
        BadWeights: the model is no streaming model.
    """

    condition: Tensor

    def __init__(self, model: VoiceModel, condition: Tensor, *, as_products: bool = False) -> None:
        super().__init__()
        check_streams(model, "model")
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.vocoder = Vocoder(as_products=as_products)
        self.look_ahead_frames = sum(model.settings.encoder_ahead)
        self.register_buffer("condition", condition)

    def start(self) -> StreamState:
        """The state before the first sample."""
        return StreamState(
            _zeros(self.encoder.blocks),
            _zeros(self.decoder.blocks),
            torch.zeros(1, dtype=torch.float64),
            torch.zeros(1, HOP_SAMPLES),
            torch.zeros(1, HOP_SAMPLES),
            torch.zeros(1, OVERLAP_HOPS, HOP_SAMPLES),
        )

    def forward(
        self,
        log_mel: Tensor,
        f0_hz: Tensor,
        hiss: Tensor,
        mel_mean: Tensor,
        mel_std: Tensor,
        frame: Tensor,
        state: StreamState,
    ) -> tuple[Tensor, StreamState]:
        """Takes c frames and gives c * 160 samples.

        Args:
            log_mel: shape (1, c, 80), the newest frames.
            f0_hz: shape (1, c + 1), the pitch of the c frames that are spoken now and of the next
                one, 0 where unvoiced.
            hiss: shape (1, c * 160), white noise from the centre of the first of them on; zero
                before the stream's first sample.
            mel_mean: shape (1, 80), of the source speaker's enrolment.
            mel_std: shape (1, 80).
            frame: shape (1,), int64, index of the first frame that is spoken now; the stream
                begins at minus the look-ahead.
            state: from the step before.

        Returns:
            shape (1, c * 160), from 80 samples before that frame on; and the new state.
        """
        time = frame + torch.cumsum(torch.ones_like(log_mel[0, :, 0]), 0).to(frame.dtype) - 1
        x = self.encoder.begin(log_mel, mel_mean, mel_std)
        x, encoder = _through(
            self.encoder.blocks, x, state.encoder, time + self.look_ahead_frames, None
        )
        content = self.encoder.finish(x)
        x = self.decoder.begin(content, f0_hz[:, :-1]) * _heard(time)
        x, decoder = _through(self.decoder.blocks, x, state.decoder, time, self.condition)
        harmonic, noise = self.decoder.envelopes(self.decoder.norm(x))
        pulses, cycles = self._pulses(f0_hz, state.cycles)
        grains = [
            torch.cat([before, fresh], dim=1).unfold(1, 2 * HOP_SAMPLES, HOP_SAMPLES)
            for before, fresh in ((state.pulses, pulses), (state.hiss, hiss))
        ]
        frames = self.vocoder.grain_frames(harmonic, noise, *grains) * _heard(time)
        hops = overlapped(frames)
        hops = torch.cat([hops[:, :OVERLAP_HOPS] + state.tail, hops[:, OVERLAP_HOPS:]], dim=1)
        after = StreamState(
            encoder,
            decoder,
            cycles - torch.round(cycles),
            pulses[:, -HOP_SAMPLES:],
            hiss[:, -HOP_SAMPLES:],
            hops[:, -OVERLAP_HOPS:],
        )
        return hops[:, :-OVERLAP_HOPS].flatten(1), after

    def _pulses(self, f0_hz: Tensor, start_cycles: Tensor) -> tuple[Tensor, Tensor]:
        """Pulses from centre to centre, shape (1, c * 160), and the phase after them, (1,)."""
        here, there = f0_hz[:, :-1], f0_hz[:, 1:]
        step = torch.where((here > 0) & (there > 0), there - here, torch.zeros_like(here))
        offset = (torch.arange(HOP_SAMPLES) + 0.5) / HOP_SAMPLES - 0.5
        leaving = here.unsqueeze(2) + step.unsqueeze(2) * offset[_HALF:]
        arriving = there.unsqueeze(2) + step.unsqueeze(2) * offset[:_HALF]
        f0 = torch.cat([leaving, arriving], dim=2).flatten(1)
        cycles = torch.cumsum(f0.double() / SAMPLE_RATE_HZ, dim=1) + start_cycles.unsqueeze(1)
        return self.vocoder.pulse_train.pulses(f0, cycles), cycles[:, -1]


def _heard(time: Tensor) -> Tensor:
    """1 for frames of the stream, 0 for those before it: shape (c,) to (1, c, 1)."""
    return (time >= 0).to(torch.float32)[None, :, None]


def _zeros(blocks: nn.ModuleList) -> Tensor:
    conv = _listed(blocks)[0].conv
    return torch.zeros(len(blocks), conv.behind + conv.ahead, conv.conv.in_channels)


def _listed(blocks: nn.ModuleList) -> list[Block]:
    return [block for block in blocks if isinstance(block, Block)]


def _through(
    blocks: nn.ModuleList, x: Tensor, past: Tensor, time: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor]:
    """c more frames through all blocks.

    Args:
        blocks: of the encoder or the decoder.
        x: shape (1, c, C).
        past: shape (blocks, kernel - 1, C), the frames before x, block by block.
        time: shape (c,), indices of the frames in x.
        condition: shape (1, 128) or None.

    Returns:
        shape (1, c, C), as many frames earlier as the blocks look ahead; and the new past.
    """
    kept = []
    for index, block in enumerate(_listed(blocks)):
        joined = torch.cat([past[index : index + 1], x], dim=1)
        kept.append(joined[:, -past.shape[1] :])
        ahead, behind = block.conv.ahead, block.conv.behind
        here = joined[:, behind : joined.shape[1] - ahead]
        time = time - ahead
        x = block.refine(here, block.conv.inner(joined), condition) * _heard(time)
    return x, torch.cat(kept)
