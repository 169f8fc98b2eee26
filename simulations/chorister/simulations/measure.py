"""How good a shared adapter is: held-out loss of speakers, and whether a change is more than
chance.

Only a simulation can do this: it holds all recordings. No client ever sends its loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from chorister.client.material import Segments
from chorister.shared.types import Adapter
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import hiss_for, own_voice_batch
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.shared_head import SharedHead, frozen_part

# The vocoder's noise is the same in every comparison, so that only the adapter differs.
HISS_SEED = 0
MAX_SEGMENTS = 8


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether the losses after are lower than before, speaker by speaker.

    Attributes:
        statistic: of Wilcoxon's signed-rank test.
        p_value: one-sided, for 'after is lower'.
        n: speakers.
        mean_difference: after minus before; below 0 is better.
    """

    statistic: float
    p_value: float
    n: int
    mean_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the form that run.json holds."""
        return {
            "name": "Wilcoxon signed-rank",
            "alternative": "less",
            "statistic": self.statistic,
            "p_value": self.p_value,
            "n": self.n,
            "mean_difference": self.mean_difference,
        }


def losses(
    model: VoiceModel,
    versions: Sequence[Adapter],
    segments: Segments,
    profile: SpeakerProfile,
) -> list[float]:
    """Return one speaker's mean reconstruction loss under each version of the shared adapter.

    Args:
        model: the base with a shared adapter attached.
        versions: adapters to compare.
        segments: of the speaker, never trained on, one length; at most 8 are used.
        profile: from the speaker's enrolment set.
    """
    used = segments.select(range(min(len(segments), MAX_SEGMENTS)))
    batch, targets = own_voice_batch(used.recordings, profile, used.features)
    model.eval()
    frozen, head = frozen_part(model, batch), SharedHead(model)
    hiss = hiss_for(batch, torch.Generator().manual_seed(HISS_SEED))
    found = []
    with torch.inference_mode():
        for version in versions:
            adapters.write_shared(model, version.values)
            wav = head(frozen.envelopes, frozen.followed, frozen.f0_hz, hiss)
            found.append(float(reconstruction_loss(wav, targets).mean()))
    return found


def paired_test(before: Sequence[float], after: Sequence[float]) -> PairedTest | None:
    """Return Wilcoxon's signed-rank test of 'after is lower', or None with fewer than two pairs."""
    difference = np.asarray(after) - np.asarray(before)
    if len(difference) < 2 or not np.any(difference):
        return None
    result = stats.wilcoxon(difference, alternative="less")
    return PairedTest(
        float(result.statistic), float(result.pvalue), len(difference), float(difference.mean())
    )
