"""DP-SGD's own mechanism under audit: many canary gradients, the optimiser and sampler of `train`.

A canary is one segment whose gradient the auditor chose: ten clips long, in a direction of its own,
its sign turning from step to step. The auditor sees every noised gradient, which is more than
anybody sees of a device. What runs is Opacus's clipping, our noise and our sampling; faults are put
around them here, as test doubles, and nothing in the product can switch them on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chorister.client.train import KeyedNoiseOptimizer, poisson_sample
from chorister.shared.privacy.charges import segment_event
from chorister.shared.privacy.figures import PrivacyFigure
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.randomness import Randomness
from chorister.simulations.attacks.one_run import Guesses, epsilon_lower_bound, guess

BLOCK = 1000
"""Canaries that share one run; more make further runs on data of their own."""
OVERSIZE = 10.0
DELTA_DP = 1e-5


@dataclass(frozen=True, slots=True)
class Setting:
    """What is claimed of one audited training.

    Attributes:
        noise_multiplier: standard deviation over the clip norm.
        sample_rate: chance of a segment to join a step.
        steps: of the optimiser.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def claim(self, delta: float = DELTA_DP) -> PrivacyFigure:
        """Return the accountants' figure for one segment."""
        event = segment_event(self.noise_multiplier, self.sample_rate, self.steps)
        return segment_figure([event] if event else [], delta)


# Opacus is in the client's half; a fault is how its parts are put together.
@dataclass(frozen=True, slots=True)
class Mechanism:
    """The parts of DP-SGD, honest unless a fault replaces one.

    Attributes:
        name: of the fault, 'none' for the honest mechanism.
        optimiser: KeyedNoiseOptimizer, or one with a fault.
        noise: what is done to the source of noise.
        sample: `poisson_sample`, or a faulty one.
    """

    name: str = "none"
    optimiser: type[KeyedNoiseOptimizer] = KeyedNoiseOptimizer
    noise: Callable[[Randomness], Randomness] = lambda source: source
    sample: Callable[[int, float, Randomness], list[int]] = poisson_sample


class _Wrapped(Randomness):
    """A source that hands everything on; its children change the noise."""

    private = False
    statement = "a fault that was planted for an audit"

    def __init__(self, inner: Randomness) -> None:
        self._inner = inner

    def bytes(self, n: int) -> bytes:
        return self._inner.bytes(n)

    def fork(self, label: str) -> Randomness:
        return type(self)(self._inner.fork(label))


class _Halved(_Wrapped):
    def normal(self, n: int) -> NDArray[np.float64]:
        return self._inner.normal(n) / 2


class _Reused(_Wrapped):
    """The same noise in every step, as from a generator that is seeded anew each time."""

    _first: NDArray[np.float64] | None = None

    def normal(self, n: int) -> NDArray[np.float64]:
        if self._first is None or len(self._first) != n:
            self._first = self._inner.normal(n)
        return self._first


class _Unclipped(KeyedNoiseOptimizer):
    def clip_and_accumulate(self) -> None:
        for p in self.params:
            p.summed_grad = self._get_flat_grad_sample(p).sum(0)


def _everybody(n: int, probability: float, randomness: Randomness) -> list[int]:
    return list(range(n))


HONEST = Mechanism()
HALVED_NOISE = Mechanism("halved noise", noise=_Halved)
MISSING_CLIP = Mechanism("missing clip", optimiser=_Unclipped)
REUSED_NOISE = Mechanism("reused noise", noise=_Reused)
NO_SAMPLING = Mechanism("sampling claimed, not done", sample=_everybody)


def flip_coins(m: int, randomness: Randomness) -> NDArray[np.bool_]:
    """Return m independent fair coins."""
    coins: NDArray[np.bool_] = (randomness.uint64(m) >> np.uint64(63)).astype(np.bool_)
    return coins


def audit_sgd(
    setting: Setting, mechanism: Mechanism, canaries: int, randomness: Randomness
) -> Guesses:
    """Run DP-SGD on canaries and guess which of them were in.

    Args:
        setting: what is claimed.
        mechanism: what runs.
        canaries: m.
        randomness: of coins, sampling and noise.
    """
    coins, scores = [], []
    for number, start in enumerate(range(0, canaries, BLOCK)):
        own = randomness.fork(f"block {number}")
        present = flip_coins(min(BLOCK, canaries - start), own.fork("coins"))
        coins.append(present)
        scores.append(_scores(setting, mechanism, present, own))
    return guess(np.concatenate(scores), np.concatenate(coins))


def violates(guesses: Guesses, setting: Setting, confidence: float = 0.95) -> bool:
    """Return whether the guesses refute the claim: the bound exceeds every accountant's figure.

    Each accountant's figure is an upper bound for the honest mechanism, so the lowest is tested.
    """
    claimed = min(setting.claim().accountants.values())
    return epsilon_lower_bound(guesses, DELTA_DP, confidence) > claimed


def _scores(
    setting: Setting, mechanism: Mechanism, present: NDArray[np.bool_], randomness: Randomness
) -> NDArray[np.float64]:
    """Return the sum of noised gradients along each canary's direction, in clips, signs undone."""
    d, clip_norm = len(present), 1.0
    weights = nn.Parameter(torch.zeros(d))
    # Scaling back by the expected batch makes the optimiser's mean a sum again.
    expected = max(1.0, setting.sample_rate * d)
    optimiser: Any = mechanism.optimiser(
        torch.optim.SGD([weights], lr=1.0), noise_multiplier=setting.noise_multiplier,
        max_grad_norm=clip_norm, expected_batch_size=expected, loss_reduction="mean",
        randomness=mechanism.noise(randomness.fork("noise")),
    )  # fmt: skip
    inside, sampler = np.flatnonzero(present), randomness.fork("sampling")
    total = np.zeros(d)
    for step in range(setting.steps):
        sign = 1.0 if step % 2 == 0 else -1.0
        rows = inside[mechanism.sample(len(inside), setting.sample_rate, sampler)]
        gradients = torch.zeros(len(rows), d)
        gradients[torch.arange(len(rows)), torch.from_numpy(rows)] = sign * OVERSIZE * clip_norm
        weights.grad_sample = gradients  # type: ignore[attr-defined]
        optimiser.step()
        if weights.grad is None:
            raise RuntimeError("the optimiser left no gradient")
        total += sign * expected / clip_norm * weights.grad.numpy().astype(np.float64)
        optimiser.zero_grad(set_to_none=True)
    return total


CLIP_AND_NOISE = Setting(noise_multiplier=2.0, sample_rate=1.0, steps=1)
TWO_STEPS = Setting(noise_multiplier=2.0 * math.sqrt(2.0), sample_rate=1.0, steps=2)
SAMPLED = Setting(noise_multiplier=1.0, sample_rate=0.1, steps=8)
PLANTED = (
    (CLIP_AND_NOISE, HONEST), (CLIP_AND_NOISE, HALVED_NOISE), (CLIP_AND_NOISE, MISSING_CLIP),
    (TWO_STEPS, HONEST), (TWO_STEPS, REUSED_NOISE),
    (SAMPLED, HONEST), (SAMPLED, NO_SAMPLING),
)  # fmt: skip
"""Every claim that is audited, honest and with its faults; chosen before any was run."""
