"""The device's whole training under audit: fabricated segments, and the delta that comes out.

Where `sgd_canaries` chooses gradients, here every gradient goes through the real features, base,
vocoder, loss and `train_shared_adapter`. A canary is a segment that the model itself spoke under an
adapter of random signs, so that its loss pulls in a direction of its own. The auditor knows all of
them and sees the delta before the speaker-level noise; it solves for who was in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chorister.client.material import Segments
from chorister.client.train import TrainingMaterial
from chorister.shared.console import Step
from chorister.shared.privacy.figures import PrivacyFigure
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.types import Recording
from chorister.shared.voice.adapters import write_shared
from chorister.shared.voice.batches import own_voice_batch
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.shared_head import SharedHead, frozen_part
from chorister.simulations.attacks.lab import Lab
from chorister.simulations.attacks.one_run import Guesses, epsilon_lower_bound, guess
from chorister.simulations.attacks.sgd_canaries import DELTA_DP, Setting, flip_coins
from chorister.simulations.randomness import SimulatedRandomness

POOL = 64
TOGETHER = 8
"""Canaries in a training, of a pool: those whose gradients are least alike."""
SHARE = 0.05
"""Guessed at each end: more than of the many canaries at mechanism level."""
_PULL = 0.3
# A step of the optimiser over all segments: the batch is as large as the settings allow.
_EVERYTHING = TrainingTask(local_steps=1, expected_batch_size=256, learning_rate=1.0)
# Noise of 1e-30 clips is lost in float32: clipping alone.
_SILENT = 1e-30


@dataclass(frozen=True, slots=True)
class TrainingAudit:
    """What the audit of whole trainings came to.

    Attributes:
        claim: the accountants' figure for one training.
        bound: lower bound on epsilon, 95 %.
        guesses: behind it.
        without_noise: the same bound where the noise is left out: the positive control.
        runs: trainings, each of other canaries on a device of its own.
    """

    claim: PrivacyFigure
    bound: float
    guesses: Guesses
    without_noise: float
    runs: int


def audit_training(lab: Lab, runs: int, seed: int, step: Step) -> TrainingAudit:
    """Train on coin-flipped canaries and guess the coins from the delta.

    Args:
        lab: of which the first voice's profile conditions the training.
        runs: each of the same few canaries, on a device of its own with coins of its own.
        seed: of everything.
        step: called once a run.
    """
    randomness = SimulatedRandomness(seed, "training audit")
    privacy = lab.federation.segment_privacy
    profile = lab.voices[0].profile
    pool = _canaries(lab, randomness)
    canaries = _least_alike(pool, _clipped_gradients(lab, pool, randomness))
    real = lab.voices[0].training.select([0])
    known = Segments(
        canaries.recordings + real.recordings, canaries.features + real.features
    )  # fmt: skip
    gradients = _clipped_gradients(lab, known, randomness)
    coins: list[NDArray[np.bool_]] = []
    scores: list[NDArray[np.float64]] = []
    control: list[NDArray[np.float64]] = []
    for number in range(runs):
        own = randomness.fork(f"run {number}")
        present = flip_coins(len(canaries), own.fork("coins"))
        # One real segment is always there: a device without any trains nothing, which tells coins.
        inside = [*np.flatnonzero(present).tolist(), TOGETHER]
        material = TrainingMaterial(known.select(inside), profile)
        for silent, into in ((False, scores), (True, control)):
            used = privacy.model_copy(update={"noise_multiplier": _SILENT}) if silent else privacy
            delta = lab.train(
                material, own.fork("training"), private=True, task=_EVERYTHING, privacy=used
            )
            # The mean over the batch becomes a sum: how many there are tells the auditor nothing.
            total = -delta.values.astype(np.float64) * len(inside)
            into.append(_solve(gradients[:TOGETHER], total - gradients[TOGETHER], privacy))
        coins.append(present)
        step()
    truth = np.concatenate(coins)
    found, plain = (guess(np.concatenate(s), truth, SHARE) for s in (scores, control))
    return TrainingAudit(
        Setting(privacy.noise_multiplier, 1.0, 1).claim(),
        epsilon_lower_bound(found, DELTA_DP), found, epsilon_lower_bound(plain, DELTA_DP), runs,
    )  # fmt: skip


def _canaries(lab: Lab, randomness: SimulatedRandomness) -> Segments:
    """Return segments whose loss pulls the adapter in a direction of their own.

    Each keeps the features of a real segment; what it shall sound like is said by the model itself
    under an adapter of random signs. No other segment pulls the same way.
    """
    voice = lab.voices[0]
    rows = [i % len(voice.training) for i in range(POOL)]
    own = voice.training.select(rows)
    batch, _ = own_voice_batch(own.recordings, voice.profile, own.features)
    frozen = frozen_part(lab.model, batch)
    head = SharedHead(lab.model)
    signs = np.where(flip_coins(POOL * lab.spec.size, randomness.fork("signs")), 1.0, -1.0)
    spoken = []
    for i, values in enumerate(signs.reshape(POOL, lab.spec.size)):
        write_shared(lab.model, (_PULL * values).astype(np.float32))
        one = frozen.select(torch.tensor([i]))
        hiss = torch.from_numpy(
            randomness.fork(f"hiss {i}").normal(one.f0_hz.numel() * HOP_SAMPLES)
        )
        with torch.no_grad():
            wav = head(one.envelopes, one.followed, one.f0_hz, hiss.float()[None])
        spoken.append(Recording(wav[0].numpy().copy(), f"canary {i}"))
    return Segments(tuple(spoken), own.features)


def _clipped_gradients(
    lab: Lab, canaries: Segments, randomness: SimulatedRandomness
) -> NDArray[np.float64]:
    """Return each canary's gradient as DP-SGD clips it, shape (m, d): a training on it alone."""
    privacy = lab.federation.segment_privacy.model_copy(update={"noise_multiplier": _SILENT})
    rows = []
    for i in range(len(canaries)):
        alone = TrainingMaterial(canaries.select([i]), lab.voices[0].profile)
        delta = lab.train(
            alone, randomness.fork("gradients"), private=True, task=_EVERYTHING, privacy=privacy
        )
        rows.append(-delta.values.astype(np.float64))
    return np.stack(rows)


def _least_alike(pool: Segments, gradients: NDArray[np.float64]) -> Segments:
    """Return the canaries that a QR decomposition with pivoting chooses."""
    from scipy.linalg import qr

    _, _, order = qr(gradients.T, mode="economic", pivoting=True)
    return pool.select(sorted(int(i) for i in order[:TOGETHER]))


def _solve(
    gradients: NDArray[np.float64], total: NDArray[np.float64], privacy: SegmentPrivacy
) -> NDArray[np.float64]:
    """Return the best linear guess of each coin: y = sum of gradients that are in, plus noise."""
    scale = privacy.noise_multiplier * privacy.clip_norm
    centred = total - 0.5 * gradients.sum(axis=0)
    covariance = 0.25 * gradients.T @ gradients + scale**2 * np.eye(len(total))
    guess_of: NDArray[np.float64] = 0.5 + 0.25 * gradients @ np.linalg.solve(covariance, centred)
    return guess_of
