"""One segment back from its gradient: what an unmasked one-step delta says of the speech in it.

The attacker sees what one optimiser step on one segment changed. It knows the base, the adapter,
the speaker's profile and even the pitch contour, and looks for an envelope whose gradient points
the same way (gradient matching by cosine: Geiping et al. 2020, arXiv:2003.14053). It begins at the
mean of other speech of the speaker, which is also the baseline: what it finds beyond that is leak.

A positive control sees the gradient frame by frame, 20 480 values instead of 320: the same attack
where it has to succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from chorister.client.material import Segments
from chorister.client.train import TrainingMaterial
from chorister.shared.console import Step
from chorister.shared.settings import TrainingTask
from chorister.shared.types import FloatArray
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import VoiceBatch, single_batch
from chorister.shared.voice.shared_head import SharedHead, traced_part
from chorister.shared.voice.torch_mel import LogMel
from chorister.simulations.attacks.lab import Lab, Voice
from chorister.simulations.attacks.rates import Measured, mean_with_interval
from chorister.simulations.randomness import SimulatedRandomness

ONE_STEP = TrainingTask(local_steps=1, expected_batch_size=1, learning_rate=1.0)
_RATE = 0.1
_SMOOTHNESS = 0.1
_PRIOR = 0.1
_ROUNDED = 0.3
"""Where the attacker's absolute values turn round, in nepers of log magnitude."""
_DECIBEL = 20.0 / np.log(10.0)
SEEN = ("plain gradient", "DP-SGD gradient", "gradient frame by frame")


@dataclass(frozen=True, slots=True)
class Inverted:
    """How near the reconstructions came.

    Attributes:
        seen: what the attacker saw.
        distance_db: mean absolute log-mel distance from the truth.
        gain_db: by how much it is nearer than the baseline, paired; interval over segments.
        spectrum_gain_db: the same of the mean spectrum, which leaves time out.
        correlation: of log-mel, each band less the speaker's mean: 0 says nothing of time.
        match: mean cosine of the reconstruction's gradient with the one seen.
    """

    seen: str
    distance_db: Measured
    gain_db: Measured
    spectrum_gain_db: Measured
    correlation: Measured
    match: float


@dataclass(frozen=True, slots=True)
class Inversion:
    """Gradient inversion with and without DP-SGD.

    Attributes:
        plain, private, framewise: what was seen, as in `SEEN`.
        baseline_db: distance of the mean of other speech of the speaker.
        segments: how many.
        pictures: of the first segment: title to log-mel, shape (F, 80).
    """

    plain: Inverted
    private: Inverted
    framewise: Inverted
    baseline_db: Measured
    segments: int
    pictures: dict[str, FloatArray]


def invert_gradients(lab: Lab, segments: int, iterations: int, seed: int, step: Step) -> Inversion:
    """Measure the attack on one segment of each of some voices.

    Args:
        lab: voices and settings.
        segments: how many, one of each voice in turn.
        iterations: of the optimiser.
        seed: of everything.
        step: called once a reconstruction.
    """
    randomness = SimulatedRandomness(seed, "inversion")
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in SEEN}
    baselines: list[float] = []
    pictures: dict[str, FloatArray] = {}
    for number in range(segments):
        voice = lab.voices[number % len(lab.voices)]
        one = voice.training.select([number // len(lab.voices)])
        own = randomness.fork(f"segment {number}")
        attack = _Attack(lab, voice, one, own)
        truth = attack.truth
        baselines.append(_distance_db(attack.baseline, truth))
        if not number:
            pictures |= {"the segment": truth, "mean of other speech (baseline)": attack.baseline}
        for seen, gradient, each_frame in attack.observations():
            found, match = attack.reconstruct(gradient, each_frame, iterations)
            distance = _distance_db(found, truth)
            rows[seen].append(
                (distance, baselines[-1] - distance,
                 _spectrum_db(attack.baseline, truth) - _spectrum_db(found, truth),
                 _correlation(found, truth, voice.profile.mel_mean), match)
            )  # fmt: skip
            if not number:
                pictures[f"from the {seen}"] = found
            step()
    plain, private, framewise = (_summary(seen, rows[seen], seed) for seen in SEEN)
    around = mean_with_interval(np.array(baselines), seed)
    return Inversion(plain, private, framewise, around, segments, pictures)


def _summary(seen: str, rows: Sequence[tuple[float, ...]], seed: int) -> Inverted:
    columns = np.array(rows).T
    distance, gain, spectrum, correlation = (mean_with_interval(c, seed) for c in columns[:4])
    return Inverted(seen, distance, gain, spectrum, correlation, float(columns[4].mean()))


class _RoundedAbs(TorchFunctionMode):
    """Absolute values with a round bottom, for the attacker's own copy of the loss."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.abs, torch.Tensor.abs):
            return (args[0].square() + _ROUNDED**2).sqrt()
        return func(*args, **(kwargs or {}))


class _Attack:
    """The attack on one segment."""

    def __init__(
        self, lab: Lab, voice: Voice, one: Segments, randomness: SimulatedRandomness
    ) -> None:
        self._lab, self._voice, self._one = lab, voice, one
        self._randomness = randomness
        self._head = SharedHead(lab.model)
        self._log_mel = LogMel()
        self._batch = single_batch(one.features[0], voice.profile, voice.profile)
        frames = self._batch.f0_hz.shape[1]
        self.truth: FloatArray = one.features[0].log_mel[:frames]
        samples = frames * 160
        self._hiss = torch.from_numpy(randomness.fork("hiss").normal(samples)).float()[None]
        self._target = torch.from_numpy(one.recordings[0].samples[:samples].copy())[None]
        start = np.broadcast_to(voice.profile.mel_mean, (frames, 80))
        with torch.no_grad():
            frozen = traced_part(lab.model, self._with(torch.from_numpy(start.copy())[None]))
            self._begin = frozen.envelopes.clone()
            self.baseline: FloatArray = self._log_mel(self._render(self._begin))[0].numpy()

    def observations(self) -> list[tuple[str, Tensor, bool]]:
        """Return what the attacker sees, each time: name, gradient, whether frame by frame."""
        material = TrainingMaterial(self._one, self._voice.profile)
        deltas = [
            self._lab.train(
                material, self._randomness.fork("training"), private=private, task=ONE_STEP
            ).values
            for private in (False, True)
        ]
        # A delta is minus the gradient, column after column of the layer.
        rows = len(self._head.shift.shift.weight)
        plain, private = (torch.from_numpy(-d.reshape(-1, rows).T.copy()) for d in deltas)
        truth = self._batch.log_mel
        framewise = self._gradient(truth, self._target, framewise=True, graph=False)
        return [(SEEN[0], plain, False), (SEEN[1], private, False), (SEEN[2], framewise, True)]

    def reconstruct(
        self, seen: Tensor, framewise: bool, iterations: int
    ) -> tuple[FloatArray, float]:
        """Return the log-mel, shape (F, 80), whose gradient matches, and how well it does."""
        envelopes = self._begin.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([envelopes], lr=_RATE)
        match = 0.0
        for _ in range(iterations):
            optimiser.zero_grad()
            wav = self._render(envelopes)
            mine = self._gradient(self._log_mel(wav), wav, framewise=framewise, graph=True)
            cosine = torch.nn.functional.cosine_similarity(mine.flatten(), seen.flatten(), dim=0)
            rough = (envelopes[:, 1:] - envelopes[:, :-1]).abs().mean()
            far = (envelopes - self._begin).square().mean()
            torch.autograd.backward(1 - cosine + _SMOOTHNESS * rough + _PRIOR * far)
            optimiser.step()
            match = float(cosine.detach())
        with torch.no_grad():
            found: FloatArray = self._log_mel(self._render(envelopes))[0].numpy()
        return found, match

    def _render(self, envelopes: Tensor) -> Tensor:
        harmonic, noise = envelopes.chunk(2, dim=2)
        wav: Tensor = self._head.vocoder(harmonic, noise, self._batch.f0_hz, self._hiss)
        return wav

    def _gradient(self, log_mel: Tensor, wav: Tensor, *, framewise: bool, graph: bool) -> Tensor:
        """Return the gradient that a device would compute on a segment."""
        frozen = traced_part(self._lab.model, self._with(log_mel))
        weight = self._head.shift.shift.weight.detach().clone().requires_grad_(True)
        shifted = frozen.envelopes + functional_call(
            self._head.shift, {"shift.weight": weight}, (frozen.followed,)
        )
        # An absolute value has no second derivative to search along; a rounded one has.
        with _RoundedAbs() if graph else nullcontext():
            loss = reconstruction_loss(self._render(shifted), wav).sum()
        (found,) = torch.autograd.grad(loss, shifted if framewise else weight, create_graph=graph)
        gradient: Tensor = found
        return gradient

    def _with(self, log_mel: Tensor) -> VoiceBatch:
        values = {name: getattr(self._batch, name) for name in VoiceBatch.__slots__}
        return VoiceBatch(**{**values, "log_mel": log_mel})


def _distance_db(found: FloatArray, truth: FloatArray) -> float:
    return float(_DECIBEL * np.abs(found - truth).mean())


def _spectrum_db(found: FloatArray, truth: FloatArray) -> float:
    return float(_DECIBEL * np.abs(found.mean(axis=0) - truth.mean(axis=0)).mean())


def _correlation(found: FloatArray, truth: FloatArray, mean: NDArray[np.float32]) -> float:
    a, b = (found - mean).ravel(), (truth - mean).ravel()
    return float(np.corrcoef(a, b)[0, 1])
