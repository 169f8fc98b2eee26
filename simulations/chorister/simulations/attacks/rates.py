"""How well an attacker's scores tell two kinds apart, with intervals over whose they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadSettings
from chorister.simulations.consent_rates import equal_error

DRAWS = 1000
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[Floats, Bools], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its interval.

    Attributes:
        value: the figure.
        low, high: 95 % interval.
        trials: how many scores or guesses it rests on.
    """

    value: float
    low: float
    high: float
    trials: int


def area_under_curve(scores: Floats, positive: Bools) -> float:
    """Return the chance that a positive scores above a negative, ties counting half."""
    _check(scores, positive)
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ordered = scores[order]
    first = np.searchsorted(ordered, ordered, side="left")
    last = np.searchsorted(ordered, ordered, side="right")
    ranks[order] = (first + last + 1) / 2
    inside, outside = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - inside * (inside + 1) / 2) / (inside * outside))


def true_positives_at(false_positives: float) -> Statistic:
    """Return the statistic 'share of positives found while so few negatives are taken for one'."""

    def statistic(scores: Floats, positive: Bools) -> float:
        _check(scores, positive)
        negatives = np.sort(scores[~positive])[::-1]
        allowed = int(np.floor(false_positives * len(negatives)))
        # Above the best negative that may not be taken: ties with it are not.
        return float(np.mean(scores[positive] > negatives[min(allowed, len(negatives) - 1)]))

    return statistic


def equal_error_rate(scores: Floats, positive: Bools) -> float:
    """Return the rate at which as many positives are refused as negatives are accepted."""
    _check(scores, positive)
    return equal_error(scores[positive], scores[~positive])[0]


def measure(
    statistic: Statistic,
    scores: Floats,
    positive: Bools,
    owner: NDArray[np.int64],
    seen: NDArray[np.int64],
    seed: int,
) -> Measured:
    """Return a statistic with a 95 % bootstrap interval over owners and what is seen of each.

    Two scores of one owner are half news, and so are two of one observation.

    Args:
        statistic: of scores and which of them are positive.
        scores: shape (n,), higher where the attacker believes it positive.
        positive: shape (n,).
        owner: shape (n,), whose score it is.
        seen: shape (n,), the observation that the score is of; drawn as a whole.
        seed: of the draws.
    """
    value = statistic(scores, positive)
    groups = [
        [np.flatnonzero((owner == name) & (seen == one)) for one in np.unique(seen[owner == name])]
        for name in np.unique(owner)
    ]
    generator = np.random.default_rng(seed)

    def draw() -> NDArray[np.int64]:
        chosen = [groups[i] for i in generator.integers(len(groups), size=len(groups))]
        return np.concatenate(
            [own[j] for own in chosen for j in generator.integers(len(own), size=len(own))]
        )

    drawn = []
    for _ in range(DRAWS):
        chosen = draw()
        if positive[chosen].any() and not positive[chosen].all():
            drawn.append(statistic(scores[chosen], positive[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measured(value, float(low), float(high), len(scores))


def share(hits: int, trials: int, confidence: float = 0.95) -> Measured:
    """Return a rate with its Clopper-Pearson interval.

    Args:
        hits: how often it happened.
        trials: out of how many, at least 1.
        confidence: of the interval.
    """
    from scipy.stats import beta

    if not 0 <= hits <= trials or trials < 1:
        raise BadSettings("A rate is of one trial or more.", f"{hits} of {trials}", "Count again.")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return Measured(hits / trials, low, high, trials)


def _check(scores: Floats, positive: Bools) -> None:
    if not np.isfinite(scores).all() or positive.all() or not positive.any():
        raise BadSettings(
            "Rates compare finite scores of two kinds.",
            f"{int(positive.sum())} of one and {int((~positive).sum())} of the other kind, "
            f"{int((~np.isfinite(scores)).sum())} scores not finite",
            "Measure both kinds.",
        )


def mean_with_interval(values: Floats, seed: int) -> Measured:
    """Return a mean with its 95 % bootstrap interval."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measured(float(values.mean()), float(low), float(high), len(values))
