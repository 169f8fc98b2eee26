"""Whose voice it is, without any neural network: Gaussian mixtures over mel cepstra.

A background mixture says how people sound; a voice is the same mixture with its means moved towards
that voice's frames. The score is how much better the voice explains an utterance than people at
large do. Nothing here is shared with the voice model or with a speaker encoder.

Source: Reynolds, Quatieri and Dunn, Speaker Verification Using Adapted Gaussian Mixture Models,
Digital Signal Processing 10 (2000), sections 3.2 to 3.4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice.mfcc import deltas, mel_cepstrum
from chorister.shared.voice.profile import LOUD_PERCENTILE, SPEECH_RANGE

COEFFICIENTS = 19
RELEVANCE = 16.0
BACKGROUND_FORMAT = "chorister-background-1"
_FEWEST_FRAMES = 20

Frames = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Background:
    """A mixture of K Gaussians with diagonal covariances over C cepstral features.

    Attributes:
        weights: shape (K,), sum 1.
        means: shape (K, C); C is 19, or 38 with the cepstra's slopes.
        variances: shape (K, C), above 0.
    """

    weights: Frames
    means: Frames
    variances: Frames

    @property
    def with_slopes(self) -> bool:
        """Whether the features hold the cepstra's slopes over time as well."""
        return bool(self.means.shape[1] == 2 * COEFFICIENTS)

    def log_likelihood(self, frames: Frames, means: Frames | None = None) -> float:
        """Mean log density of frames (F, C), nepers a frame; `means` (K, C) instead of its own."""
        log_parts = self._log_parts(frames, self.means if means is None else means)
        return float(_log_sum(log_parts).mean())

    def adapt(self, frames: Frames) -> Frames:
        """Means (K, C) moved to a voice's frames (F, C): maximum a posteriori, relevance 16."""
        log_parts = self._log_parts(frames, self.means)
        share = np.exp(log_parts - _log_sum(log_parts)[:, None])
        count = share.sum(0)[:, None]
        mean = share.T @ frames / np.maximum(count, 1e-9)
        weight = count / (count + RELEVANCE)
        return np.asarray(weight * mean + (1.0 - weight) * self.means)

    def _log_parts(self, frames: Frames, means: Frames) -> Frames:
        precision = 1.0 / self.variances
        log_scale = np.log(self.weights) + 0.5 * (np.log(precision / (2.0 * np.pi))).sum(1)
        distance = (
            (frames**2) @ precision.T
            - 2.0 * frames @ (means * precision).T
            + (means**2 * precision).sum(1)
        )
        return np.asarray(log_scale - 0.5 * distance)


class VoiceMixture:
    """One voice, by its recordings' cepstra.

    Args:
        background: what people sound like.
        log_mels: of the voice's recordings, shape (F, 80) each.

    Raises:
        BadAudio: less than 0.2 s of speech in all of them.
    """

    def __init__(self, background: Background, log_mels: list[FloatArray]) -> None:
        self._background = background
        parts = [
            cepstral_frames(log_mel, with_slopes=background.with_slopes) for log_mel in log_mels
        ]
        frames = np.concatenate(parts) if parts else np.zeros((0, 1))
        if len(frames) < _FEWEST_FRAMES:
            raise BadAudio(
                "A voice is known by at least 0.2 s of speech.",
                f"{len(frames) / 100:.2f} s in {len(parts)} recordings",
                "Give more or longer recordings.",
            )
        self._means = background.adapt(frames)

    def ratio(self, log_mel: FloatArray) -> float:
        """Log-likelihood ratio of an utterance, this voice to the background, nepers a frame.

        Args:
            log_mel: shape (F, 80), F at least 1.
        """
        background = self._background
        frames = cepstral_frames(log_mel, with_slopes=background.with_slopes)
        own = background.log_likelihood(frames, self._means)
        return own - background.log_likelihood(frames)


def cepstral_frames(log_mel: FloatArray, *, with_slopes: bool) -> Frames:
    """Mel cepstra 1 to 19 of the frames with speech, their mean taken out: the channel goes too.

    Args:
        log_mel: shape (F, 80), natural logarithm, F at least 1.
        with_slopes: also the slopes over five frames.

    Returns:
        shape (F', 19) or (F', 38).
    """
    cepstra = mel_cepstrum(log_mel, COEFFICIENTS)
    if with_slopes:
        cepstra = np.concatenate([cepstra, deltas(cepstra)], axis=1)
    level = log_mel.mean(axis=1)
    spoken = cepstra[level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE]
    return np.asarray(spoken - spoken.mean(0))


def read_background(path: Path, sha256: str | None = None) -> Background:
    """Read a background mixture.

    Args:
        path: a safetensors file of this format.
        sha256: what its digest must be; None if any will do.

    Raises:
        BadWeights: missing, with another digest or format, or values that make no mixture.
    """
    rule = "A background mixture is a file that this version understands."
    advice = "Reinstall the package."
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 is not None and digest != sha256:
            raise BadWeights(rule, f"{path.name} with digest {digest[:16]}...", advice)
        with safe_open(path, "np") as file:
            found = (file.metadata() or {}).get("format", "no format")
            if found != BACKGROUND_FORMAT:
                raise BadWeights(rule, f"{path.name} of format {found!r}", advice)
            weights, means, variances = (
                np.asarray(file.get_tensor(name), np.float64)
                for name in ("weights", "means", "variances")
            )
    except (OSError, SafetensorError) as error:
        raise BadWeights(rule, f"{path.name}, unreadable ({error})", advice) from error
    fits = (
        means.shape == variances.shape == (len(weights), means.shape[-1])
        and means.shape[1] in (COEFFICIENTS, 2 * COEFFICIENTS)
        and bool(np.isfinite(means).all() and (variances > 0).all() and (weights > 0).all())
    )
    if not fits:
        found = f"{path.name} with means of shape {means.shape}"
        raise BadWeights(rule, found, advice)
    return Background(weights / weights.sum(), means, variances)


def _log_sum(log_parts: Frames) -> Frames:
    top = log_parts.max(1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(log_parts - top).sum(1)))
