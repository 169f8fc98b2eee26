"""The model cut where the shared adapter begins, so that what is frozen is computed once.

    log-mel, F0, profile -> [encoder, decoder: frozen] -> envelopes, directions
                         -> [shared adapter, vocoder: the head] -> waveform

The two parts in a row are `VoiceModel.forward` without a personal adapter's influence left out:
whatever is attached to the decoder's blocks belongs to the frozen part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chorister.shared.errors import BadWeights
from chorister.shared.voice.decoder import OutputShift
from chorister.shared.voice.model import VoiceBatch, VoiceModel
from chorister.shared.voice.recall import foreignness


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the head reads of B examples.

    Attributes:
        envelopes: shape (B, F, 160), log magnitudes before the shared adapter.
        followed: shape (B, F, 8), the directions that the adapter may follow.
        f0_hz: shape (B, F), 0 where unvoiced.
    """

    envelopes: Tensor
    followed: Tensor
    f0_hz: Tensor

    def select(self, rows: Tensor) -> Frozen:
        """Return some of the examples."""
        return Frozen(self.envelopes[rows], self.followed[rows], self.f0_hz[rows])


class SharedHead(nn.Module):
    """The shared adapter and the vocoder of a model, with its own values (not a copy).

    Args:
        model: with a shared adapter attached.

    Raises:
        BadWeights: none is attached.
    """

    shift: OutputShift

    def __init__(self, model: VoiceModel) -> None:
        super().__init__()
        if model.decoder.shared is None:
            raise BadWeights(
                "A shared adapter must be attached first.", "none", "Call attach_shared."
            )
        self.shift = model.decoder.shared
        self.vocoder = model.vocoder

    def forward(self, envelopes: Tensor, followed: Tensor, f0_hz: Tensor, hiss: Tensor) -> Tensor:
        """Return waveforms, shape (B, F * 160), from the fields of `Frozen` and the noise."""
        shifted = envelopes + self.shift(followed)
        harmonic, noise = shifted.chunk(2, dim=2)
        wav: Tensor = self.vocoder(harmonic, noise, f0_hz, hiss)
        return wav


def frozen_part(model: VoiceModel, batch: VoiceBatch) -> Frozen:
    """Return what the head reads of a batch; example by example, no gradient."""
    with torch.no_grad():
        return traced_part(model, batch)


def traced_part(model: VoiceModel, batch: VoiceBatch) -> Frozen:
    """Return the same with gradients to whatever in the batch asks for them."""
    decoder = model.decoder
    content = model.encoder(batch.log_mel, batch.source_mel_mean, batch.source_mel_std)
    condition = decoder.condition(batch.target_vector, batch.target_mel_mean, batch.target_mel_std)
    foreign = foreignness(batch.source_mel_mean, batch.target_mel_mean)
    tables = (batch.sounds_content, batch.sounds_log_mel)
    content, recalled = decoder.recall(content, *tables, foreign)
    hidden = decoder.hidden(content, batch.f0_hz, condition)
    followed = (hidden - decoder.directions_mean) @ decoder.directions
    return Frozen(decoder.own_envelopes(hidden, batch.f0_hz, recalled), followed, batch.f0_hz)
