"""Segments with their analysis, as the vault keeps them: made once, used in every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chorister.shared.errors import BadWeights
from chorister.shared.types import FeatureSequence, Recording
from chorister.shared.voice.features import extract_features


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of one length and their features, one for one.

    Attributes:
        recordings: N segments.
        features: of each segment, from its own samples alone.
    """

    recordings: tuple[Recording, ...]
    features: tuple[FeatureSequence, ...]

    def __len__(self) -> int:
        return len(self.recordings)

    def __repr__(self) -> str:
        return f"Segments({len(self)})"

    def select(self, rows: Sequence[int]) -> Segments:
        """Return some of the segments."""
        return Segments(
            tuple(self.recordings[i] for i in rows), tuple(self.features[i] for i in rows)
        )

    def to_bytes(self) -> bytes:
        """Return safetensors for the vault; the names are numbered anew when it is read."""
        if not self.recordings:
            return bytes(save({"samples": np.zeros((0, 0), np.float32)}))
        return bytes(
            save(
                {
                    "samples": np.stack([r.samples for r in self.recordings]),
                    "log_mel": np.stack([f.log_mel for f in self.features]),
                    "f0_hz": np.stack([f.f0_hz for f in self.features]),
                }
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Segments:
        """Return what `to_bytes` wrote.

        Raises:
            BadWeights: something else.
        """
        try:
            arrays = load(data)
            samples = arrays["samples"]
            if not len(samples):
                return cls((), ())
            rows = list(zip(samples, arrays["log_mel"], arrays["f0_hz"], strict=True))
        except (SafetensorError, KeyError, ValueError):
            raise BadWeights(
                "Kept segments hold samples, log_mel and f0_hz.",
                "something else",
                "Delete them from the vault; they are made again from the recordings.",
            ) from None
        return cls(
            tuple(Recording(own, f"segment {i}") for i, (own, _, _) in enumerate(rows)),
            tuple(FeatureSequence(log_mel, f0_hz) for _, log_mel, f0_hz in rows),
        )


def analyse(recordings: Sequence[Recording]) -> Segments:
    """Return segments with their features."""
    return Segments(tuple(recordings), tuple(extract_features(r) for r in recordings))
