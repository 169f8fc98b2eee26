"""The voice model as a step on a stream: everything that it remembers is a tensor, in and out.

    log-mel of frames t - c + 1 .. t -> encoder -> content of frames k - c + 1 .. k,  k = t - ahead
    content, F0 of the same frames   -> decoder -> envelopes
    pulses and noise between the centres of frames k and k + 1 -> grain k -> overlap-add -> samples

A block remembers the last kernel - 1 frames of its input: from them its convolution goes on, and
its residual is read with the right delay. Frames before the stream's first are zero in every
block, as the padding of the whole model has it, so both give the same numbers.

Since the target does not change, its FiLM and each block's LayerNorm are folded into the layer
behind them: a step of one frame takes its time from the count of operators, not from their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.errors import BadWeights
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.blocks import Block, TimeConv
from chorister.shared.voice.decoder import Decoder
from chorister.shared.voice.encoder import ContentEncoder
from chorister.shared.voice.features import FFT_SAMPLES
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.model import VoiceModel, heard_envelopes
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.recall import foreignness
from chorister.shared.voice.stream_weights import check_streams
from chorister.shared.voice.vocoder import OVERLAP_HOPS, Vocoder, overlapped
from chorister.shared.voice.voicing import begun_early

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
        target: whose voice it shall be.
        as_products: as in `Vocoder`.

    Raises:
        BadWeights: the model is no streaming model.
    """

    sounds_content: Tensor
    sounds_log_mel: Tensor
    target_mel_mean: Tensor

    def __init__(
        self, model: VoiceModel, target: SpeakerProfile, *, as_products: bool = False
    ) -> None:
        super().__init__()
        check_streams(model, "model")
        condition = model.decoder.condition(
            _row(target.vector), _row(target.mel_mean), _row(target.mel_std)
        )
        self.register_buffer("sounds_content", _row(target.sounds_content))
        self.register_buffer("sounds_log_mel", _row(target.sounds_log_mel))
        self.register_buffer("target_mel_mean", _row(target.mel_mean))
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.hearing = nn.ModuleList(_FoldedBlock(block, None) for block in _listed(model.encoder))
        self.speaking = nn.ModuleList(
            _FoldedBlock(block, condition) for block in _listed(model.decoder)
        )
        self.vocoder = Vocoder(as_products=as_products)
        self.look_ahead_frames = sum(model.settings.encoder_ahead)

    def start(self) -> StreamState:
        """The state before the first sample."""
        return StreamState(
            _zeros(self.hearing),
            _zeros(self.speaking),
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
            hiss: shape (1, c * 160), the noise from the centre of the first of them on; zero
                before the stream's first sample.
            mel_mean: shape (1, 80), of the source speaker's enrolment.
            mel_std: shape (1, 80).
            frame: shape (1,), int64, index of the first frame that is spoken now; the stream
                begins at minus the look-ahead.
            state: from the step before.

        Returns:
            shape (1, c * 160), from 80 samples before that frame on; and the new state.
        """
        count = log_mel.shape[1]
        time = frame + torch.arange(count)
        x = self.encoder.begin(log_mel, mel_mean, mel_std)[0]
        x, encoder = _through(self.hearing, x, state.encoder, time + self.look_ahead_frames)
        content, arriving_hz = self.encoder.finish(x)[None], f0_hz[:, 1:]
        spoken_hz = begun_early(f0_hz[:, :-1], arriving_hz) * _heard(time).T
        foreign = foreignness(mel_mean, self.target_mel_mean)
        content, recalled = self.decoder.recall(
            content, self.sounds_content, self.sounds_log_mel, foreign
        )
        x = self.decoder.begin(content, spoken_hz)[0] * _heard(time)
        x, decoder = _through(self.speaking, x, state.decoder, time)
        hidden = self.decoder.norm(x)[None]
        envelopes = self.decoder.envelopes(hidden, spoken_hz, recalled)
        harmonic, noise = heard_envelopes(self.decoder, *envelopes, spoken_hz)
        pulses, cycles = self._pulses(spoken_hz, arriving_hz, state.cycles)
        grains = (_grains(state.pulses, pulses), _grains(state.hiss, hiss))
        frames = self.vocoder.grain_frames(harmonic, noise, *grains) * _heard(time)
        hops = _laid(frames)
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

    def _pulses(self, here: Tensor, there: Tensor, start_cycles: Tensor) -> tuple[Tensor, Tensor]:
        """Pulses from centre to centre, shape (1, c * 160), and the phase after them, (1,).

        They leave a centre with the pitch that its frame is spoken with. With which the next frame
        is, only the one after it tells; they arrive there with its pitch as it was heard.
        """
        step = torch.where((here > 0) & (there > 0), there - here, torch.zeros_like(here))
        offset = (torch.arange(HOP_SAMPLES) + 0.5) / HOP_SAMPLES - 0.5
        leaving = here.unsqueeze(2) + step.unsqueeze(2) * offset[_HALF:]
        arriving = there.unsqueeze(2) + step.unsqueeze(2) * offset[:_HALF]
        f0 = torch.cat([leaving, arriving], dim=2).flatten(1)
        cycles = torch.cumsum(f0.double() / SAMPLE_RATE_HZ, dim=1) + start_cycles.unsqueeze(1)
        return self.vocoder.pulse_train.pulses(f0, cycles), cycles[:, -1]


def _row(values: FloatArray) -> Tensor:
    """A batch of one."""
    return torch.from_numpy(np.array(values, np.float32))[None]


def _heard(time: Tensor) -> Tensor:
    """1 for frames of the stream, 0 for those before it: shape (c,) to (c, 1)."""
    return (time >= 0).to(torch.float32)[:, None]


def _laid(frames: Tensor) -> Tensor:
    """`overlapped`, by fewer operators where there is nothing to overlap."""
    if frames.shape[1] > 1:
        return overlapped(frames)
    rest = (OVERLAP_HOPS + 1) * HOP_SAMPLES - FFT_SAMPLES
    return nn.functional.pad(frames, (0, rest)).reshape(1, -1, HOP_SAMPLES)


def _grains(before: Tensor, fresh: Tensor) -> Tensor:
    """Hops (1, 160) and (1, c * 160) as overlapping pairs, shape (1, c, 320)."""
    hops = torch.cat([before, fresh], dim=1).reshape(1, -1, HOP_SAMPLES)
    return torch.cat([hops[:, :-1], hops[:, 1:]], dim=2)


class _FoldedBlock(nn.Module):
    """A `Block` for one target, on frames as rows: (c, C).

    Args:
        block: what it computes, adapter included.
        condition: shape (1, S), where the block has FiLM.
    """

    taps: Tensor
    bias: Tensor
    widen_weight: Tensor
    widen_bias: Tensor

    def __init__(self, block: Block, condition: Tensor | None) -> None:
        super().__init__()
        time, norm = block.conv, block.norm
        if not isinstance(time, TimeConv):
            raise BadWeights(
                "A streaming model mixes frames by convolutions.",
                type(time).__name__,
                "Make one with `chorister train-stream`.",
            )
        conv = time.conv
        self.ahead, self.behind = time.ahead, time.behind
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.narrow, self.adapter = block.narrow, block.adapter
        scale, shift = norm.weight, norm.bias
        if block.film is not None and condition is not None:
            more, offset = block.film(condition)[0].chunk(2)
            scale, shift = scale * (1.0 + more), shift * (1.0 + more) + offset
        with torch.no_grad():
            widen = block.widen
            fixed = {
                "taps": conv.weight[:, 0, 0].T.contiguous(),
                "bias": torch.zeros(len(scale)) if conv.bias is None else conv.bias,
                "widen_weight": widen.weight * scale,
                "widen_bias": widen.bias + widen.weight @ shift,
            }
        for name, value in fixed.items():
            self.register_buffer(name, value.detach())

    def filtered(self, joined: Tensor) -> Tensor:
        """The convolution, where all that it needs is there: (kernel - 1 + c, C) to (c, C)."""
        windows = joined.unfold(0, len(self.taps), 1)
        filtered: Tensor = (windows * self.taps.T).sum(dim=2)
        return filtered + self.bias

    def forward(self, joined: Tensor) -> Tensor:
        """c frames, and kernel - 1 before them, to c frames `ahead` frames earlier."""
        residual = joined[self.behind : len(joined) - self.ahead]
        return self.refine(residual, self.filtered(joined))

    def refine(self, residual: Tensor, filtered: Tensor) -> Tensor:
        """What follows the convolution: frames (c, C) and their convolution to (c, C)."""
        y = nn.functional.layer_norm(filtered, self.shape, eps=self.eps)
        y = nn.functional.linear(y, self.widen_weight, self.widen_bias)
        y = self.narrow(_gelu(y))
        if self.adapter is not None:
            y = y + self.adapter(y)
        out: Tensor = residual + y
        return out


def _gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, written out: onnxruntime makes one operator of just these steps."""
    cubic = x + 0.044715 * torch.pow(x, 3.0)
    y: Tensor = 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * cubic))
    return y


def _listed(part: ContentEncoder | Decoder) -> list[Block]:
    return [block for block in part.blocks if isinstance(block, Block)]


def _zeros(blocks: nn.ModuleList) -> Tensor:
    kernel, channels = _folded(blocks)[0].taps.shape
    return torch.zeros(len(blocks), kernel - 1, channels)


def _folded(blocks: nn.ModuleList) -> list[_FoldedBlock]:
    return [block for block in blocks if isinstance(block, _FoldedBlock)]


def _through(blocks: nn.ModuleList, x: Tensor, past: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """c more frames through all blocks.

    Args:
        blocks: of the encoder or the decoder.
        x: shape (c, C).
        past: shape (blocks, kernel - 1, C), the frames before x, block by block.
        time: shape (c,), indices of the frames in x.

    Returns:
        shape (c, C), as many frames earlier as the blocks look ahead; and the new past.
    """
    if len(x) == 1:
        return _through_one(blocks, x, past, time)
    kept = []
    heard = _heard(time)
    for block, before in zip(_folded(blocks), past.unbind(), strict=True):
        joined = torch.cat([before, x])
        kept.append(joined[-len(before) :])
        if block.ahead:
            time = time - block.ahead
            heard = _heard(time)
        x = block(joined) * heard
    return x, torch.stack(kept)


def _through_one(
    blocks: nn.ModuleList, x: Tensor, past: Tensor, time: Tensor
) -> tuple[Tensor, Tensor]:
    """`_through` for one frame, in fewer operators: what all blocks remember is filtered at once.

    Arguments and results as of `_through`, with c = 1.
    """
    folded = _folded(blocks)
    taps = torch.stack([block.taps[:-1] for block in folded])
    biases = torch.stack([block.bias for block in folded])
    before = ((past * taps).sum(dim=1) + biases).unsqueeze(1).unbind()
    fresh = []
    heard = _heard(time)
    for index, block in enumerate(folded):
        fresh.append(x)
        residual = x
        if block.ahead:
            time = time - block.ahead
            heard = _heard(time)
            residual = past[index, len(past[index]) - block.ahead].unsqueeze(0)
        x = block.refine(residual, before[index] + x * block.taps[-1]) * heard
    return x, torch.cat([past[:, 1:], torch.stack(fresh)], dim=1)
