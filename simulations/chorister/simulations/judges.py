"""Who decides which voice an utterance has: two speaker encoders and a statistical model.

The voice model is conditioned on our own encoder's vectors and may be trained on their cosine, so
that encoder flatters it. GE2E is the encoder's teacher: another network, but related. The third
judge shares nothing with either: Gaussian mixtures adapted from a background model (Reynolds,
Quatieri and Dunn, Speaker Verification Using Adapted Gaussian Mixture Models, 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.metrics import speaker_similarity, voice_centroid
from chorister.shared.voice.mfcc import mel_cepstrum
from chorister.shared.voice.profile import speech_frames
from chorister.shared.voice.speaker import SpeakerEncoder
from chorister.simulations.ge2e import Ge2e

COEFFICIENTS = 19
COMPONENTS = 32
RELEVANCE = 16.0
_SMALLEST_STD = 1e-3
Cepstra = NDArray[np.float64]


class Judge(Protocol):
    """Scores of an utterance for each of N voices; higher is more alike."""

    name: str

    def score(self, samples: FloatArray) -> NDArray[np.float64]:
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

    def score(self, samples: FloatArray) -> NDArray[np.float64]:
        """Cosines with the N centroids, in [-1, 1]."""
        return speaker_similarity(self._embed(samples)[None], self._centroids).reshape(-1)


def normalised_cepstra(samples: FloatArray) -> Cepstra:
    """Mel cepstra of the frames with speech, mean and spread taken out: the channel goes too.

    Args:
        samples: shape (T,), 16 kHz.

    Returns:
        shape (F', 19).
    """
    cepstra = mel_cepstrum(speech_frames(log_mel(samples)), COEFFICIENTS)
    spread = np.maximum(cepstra.std(0), _SMALLEST_STD)
    return np.asarray((cepstra - cepstra.mean(0)) / spread)


class MixtureJudge:
    """Log-likelihood ratio a frame of each voice's adapted mixture to the background's.

    The background model is fitted on the reference recordings of all voices together; the means
    are adapted to each voice by maximum a posteriori with relevance factor 16.

    Args:
        references: the recordings of each voice.
        seed: of the mixture's initialisation.
    """

    name = "gmm-ubm"

    def __init__(self, references: Sequence[Sequence[Recording]], seed: int = 0) -> None:
        voices = [
            np.concatenate([normalised_cepstra(recording.samples) for recording in one])
            for one in references
        ]
        self._background = GaussianMixture(
            COMPONENTS, covariance_type="diag", random_state=seed, reg_covar=1e-3
        ).fit(np.concatenate(voices))
        self._means = [self._adapt(frames) for frames in voices]

    def _adapt(self, frames: Cepstra) -> Cepstra:
        share = self._background.predict_proba(frames)  # (F, K)
        count = share.sum(0)[:, None]
        mean = share.T @ frames / np.maximum(count, 1e-9)
        weight = count / (count + RELEVANCE)
        return np.asarray(weight * mean + (1.0 - weight) * self._background.means_)

    def _log_likelihood(self, frames: Cepstra, means: Cepstra) -> float:
        precision = 1.0 / self._background.covariances_
        log_scale = np.log(self._background.weights_) + 0.5 * np.log(precision).sum(1)
        distance = (
            (frames**2) @ precision.T
            - 2.0 * frames @ (means * precision).T
            + (means**2 * precision).sum(1)
        )
        log_parts = log_scale - 0.5 * distance
        top = log_parts.max(1, keepdims=True)
        return float((top[:, 0] + np.log(np.exp(log_parts - top).sum(1))).mean())

    def score(self, samples: FloatArray) -> NDArray[np.float64]:
        """Mean log-likelihood ratios to the N voices, nepers a frame."""
        frames = normalised_cepstra(samples)
        base = self._log_likelihood(frames, self._background.means_)
        return np.array([self._log_likelihood(frames, means) - base for means in self._means])
