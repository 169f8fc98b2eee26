"""Training batches: segments of one speaker, to be said again in the same voice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chorister.shared.errors import BadAudio
from chorister.shared.types import FeatureSequence, Recording
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.model import VoiceBatch, single_batch
from chorister.shared.voice.profile import SpeakerProfile

_TABLE = ("sounds_content", "sounds_log_mel")


def own_voice_batch(
    segments: Sequence[Recording],
    profile: SpeakerProfile,
    features: Sequence[FeatureSequence] | None = None,
) -> tuple[VoiceBatch, Tensor]:
    """Return the model's input and its target for segments of one length.

    Each row depends on its own segment and on the profile, on no other row.

    Args:
        segments: B recordings of T samples each.
        profile: of their speaker, from other recordings.
        features: of the segments, where they are known already.

    Returns:
        The batch with F = T // 160 frames, and the targets, shape (B, F * 160).

    Raises:
        BadAudio: no segments, or of different lengths.
    """
    lengths = {len(segment.samples) for segment in segments}
    if len(lengths) != 1:
        raise BadAudio(
            "A batch holds segments of one length.",
            f"lengths {sorted(lengths)} in samples",
            "Cut the recordings into segments of fixed boundaries first.",
        )
    known = [extract_features(s) for s in segments] if features is None else features
    rows = [single_batch(one, profile, profile) for one in known]
    # Views of one row: a table of sounds for every segment would fill the memory.
    batch = VoiceBatch(
        *(
            getattr(rows[0], name).expand(len(rows), -1, -1)
            if name in _TABLE
            else torch.cat([getattr(row, name) for row in rows])
            for name in VoiceBatch.__slots__
        )
    )
    samples = lengths.pop() // HOP_SAMPLES * HOP_SAMPLES
    return batch, torch.from_numpy(np.stack([s.samples[:samples] for s in segments]))


def select(batch: VoiceBatch, rows: Tensor) -> VoiceBatch:
    """Return some rows of a batch.

    Args:
        batch: B rows.
        rows: shape (B',), indices.
    """
    return VoiceBatch(*(getattr(batch, name)[rows] for name in VoiceBatch.__slots__))


def hiss_for(batch: VoiceBatch, generator: torch.Generator) -> Tensor:
    """Return the vocoder's noise for a batch from a generator, shape (B, F * 160).

    A generator on the CPU draws the same numbers for a batch on any device.
    """
    rows, frames = batch.f0_hz.shape
    return draw_hiss((rows, frames * HOP_SAMPLES), generator).to(batch.f0_hz.device)
