"""Who decides which voice an utterance has: two speaker encoders and a statistical model.

The voice model is conditioned on our own encoder's vectors and may be trained on their cosine, so
that encoder flatters it. GE2E is the encoder's teacher: another network, but related. The third
judge shares nothing with either: Gaussian mixtures adapted from a background model
(`chorister.shared.voice.mixture`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.metrics import speaker_similarity, voice_centroid
from chorister.shared.voice.mixture import VoiceMixture
from chorister.shared.voice.speaker import SpeakerEncoder
from chorister.simulations.background import fit_background
from chorister.simulations.ge2e import Ge2e

COMPONENTS = 64
_COHORT_RECORDINGS = 4
_SMALLEST_SPREAD = 1e-3

Scores = NDArray[np.float64]


class Judge(Protocol):
    """Scores of an utterance for each of N voices; higher is more alike."""

    name: str

    def score(self, samples: FloatArray) -> Scores:
        """Scores of samples (T,) at 16 kHz, shape (N,)."""


class CosineJudge:
    """Cosine of a speaker vector with each voice's centroid.

    Args:
        name: what to call it in a report.
        encoder: our own encoder or GE2E.
        references: the recordings of each voice.
    """

    def __init__(
        self,
        name: str,
        encoder: SpeakerEncoder | Ge2e,
        references: Sequence[Sequence[Recording]],
    ) -> None:
        self.name = name
        self._encoder = encoder
        self._centroids = np.stack(
            [voice_centroid(np.stack([self._embed(r.samples) for r in one])) for one in references]
        )

    def _embed(self, samples: FloatArray) -> FloatArray:
        if isinstance(self._encoder, SpeakerEncoder):
            return self._encoder.embed(log_mel(samples))
        return self._encoder.embed(samples)

    def score(self, samples: FloatArray) -> Scores:
        """Cosines with the N centroids, in [-1, 1]."""
        return speaker_similarity(self._embed(samples)[None], self._centroids).reshape(-1)


class MixtureJudge:
    """Log-likelihood ratio a frame of each voice's adapted mixture to the background's.

    Cepstra 1 to 19 and their slopes, the utterance's mean taken out, 64 components; means adapted
    to each voice by maximum a posteriori with relevance factor 16.

    Args:
        references: the recordings of each voice, at least two voices.
        background: recordings of other people to fit the background to; where there are none, the
            references of all voices together.
        seed: of the fit.
    """

    name = "gmm-ubm"

    def __init__(
        self,
        references: Sequence[Sequence[Recording]],
        background: Sequence[Recording] = (),
        seed: int = 0,
    ) -> None:
        people = background or [recording for one in references for recording in one]
        mixture = fit_background(people, COMPONENTS, with_slopes=True, seed=seed)
        mels = [[log_mel(recording.samples) for recording in one] for one in references]
        self._voices = [VoiceMixture(mixture, one) for one in mels]
        cohort = [[self._ratios(mel) for mel in one[:_COHORT_RECORDINGS]] for one in mels]
        self._strangers = [
            np.array(
                [row[own] for other, rows in enumerate(cohort) if other != own for row in rows]
            )
            for own in range(len(references))
        ]

    def _ratios(self, mel: FloatArray) -> Scores:
        return np.array([voice.ratio(mel) for voice in self._voices])

    def score(self, samples: FloatArray) -> Scores:
        """Mean log-likelihood ratios to the N voices, nepers a frame."""
        return self._ratios(log_mel(samples))

    def standardise(self, scores: Scores) -> Scores:
        """Ratios in standard deviations above what other people's real speech gets (Z-norm).

        Args:
            scores: shape (N,), from `score`.

        Returns:
            shape (N,): each voice's ratio, less the mean ratio of the other voices' reference
            recordings to that voice, over their standard deviation (Auckenthaler, Carey and
            Lloyd-Thomas, Score normalization for text-independent speaker verification, 2000).
        """
        mean = np.array([strangers.mean() for strangers in self._strangers])
        spread = np.array([strangers.std() for strangers in self._strangers])
        return np.asarray((scores - mean) / np.maximum(spread, _SMALLEST_SPREAD))
