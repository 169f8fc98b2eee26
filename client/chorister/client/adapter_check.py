"""Whether a shared adapter does to this speaker's own speech what a good one does.

An adapter is measured by the reconstruction loss of the held-out segments, with it and without any.
One that makes them much worse is not used: neither for a personal voice nor to train from.

A refusal that the server sees would tell it one bit about speech that no figure covers. So while a
round runs this decides nothing but the content of the delta: the device goes through the round as
always and puts a delta of zeros into the sum, under the same noise and masks. The speaker-level
figure compares with exactly that, one speaker's contribution replaced by zeros, so it covers this
bit too. What is left is in the device's own ledger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from chorister.client.material import Segments
from chorister.shared.errors import BadWeights
from chorister.shared.types import Adapter
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import hiss_for, own_voice_batch
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.shared_head import SharedHead, frozen_part

# Much worse than no adapter. An adapter of honest rounds lowers the loss by some per cent; noise
# that drowns what was learnt raises it by as much, and is repaired by the next rounds.
LARGEST_RATIO = 1.5
_MOST_SEGMENTS = 12
_SEED = 0


@dataclass(frozen=True, slots=True)
class Effect:
    """What an adapter does to held-out speech.

    Attributes:
        without: mean loss with no adapter.
        given: mean loss with it; infinite where it is not finite.
    """

    without: float
    given: float

    @property
    def harmful(self) -> bool:
        """Whether it makes the speech much worse."""
        return not self.given <= LARGEST_RATIO * self.without

    def __str__(self) -> str:
        return f"held-out loss {self.without:.3f} without it, {self.given:.3f} with it"


def effect_of(
    adapter: Adapter, model: VoiceModel, held_out: Segments, profile: SpeakerProfile
) -> Effect:
    """Return what a shared adapter does to segments that nothing is trained on.

    Args:
        adapter: shape (d,), of the layout that is attached to the model.
        model: with a shared adapter attached, whose values are put back afterwards.
        held_out: at least one segment, all of one length.
        profile: of the speaker, from the enrolment set.

    Raises:
        BadAudio: no segments.
        BadWeights: none is attached, or one of another size.
    """
    few = held_out.select(range(min(len(held_out), _MOST_SEGMENTS)))
    device = next(model.parameters()).device
    batch, targets = own_voice_batch(few.recordings, profile, few.features)
    hiss = hiss_for(batch, torch.Generator().manual_seed(_SEED)).to(device)
    before = adapters.read_shared(model)
    frozen, head = frozen_part(model.eval(), batch.to(device)), SharedHead(model)

    def loss(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
        adapters.write_shared(model, values)
        with torch.inference_mode():
            wav = head(frozen.envelopes, frozen.followed, frozen.f0_hz, hiss)
            return float(reconstruction_loss(wav, targets.to(device)).mean())

    try:
        return Effect(loss(np.zeros_like(adapter.values)), loss(adapter.values))
    finally:
        adapters.write_shared(model, before)


def require_harmless(effect: Effect) -> None:
    """Return unless the adapter makes this speaker's voice much worse.

    Raises:
        BadWeights: it does.
    """
    if effect.harmful:
        raise BadWeights(
            f"A shared adapter raises the loss of held-out speech to at most {LARGEST_RATIO:g} "
            "times what it is without.",
            str(effect),
            "Leave --adapter out, or take another version.",
        )
