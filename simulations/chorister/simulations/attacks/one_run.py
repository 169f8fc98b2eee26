"""Auditing with one run: from right guesses about coin flips to a lower bound on epsilon.

Each of m canaries is in the data by an independent fair coin. Whoever sees the output guesses the
coins of r of them, best guesses only. An (epsilon, delta)-private mechanism bounds how many guesses
can be right, so many right guesses refute an epsilon. Source: Steinke, Nasr, Jagielski 2023,
'Privacy Auditing with One (1) Training Run' (arXiv:2305.08846), corollary 5.4 and appendix D.

Runs on separate data, each with coins of its own, count as one run: a mechanism that is private on
each part is private on all parts together (parallel composition).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from chorister.shared.errors import BadSettings

GUESSED_SHARE = 0.02
"""Share of the canaries guessed as in, and as many as out: fixed before any score is seen."""
LEAST_GUESSES = 10
_SEARCH_STEPS = 40
_LARGEST_EPSILON = 60.0


@dataclass(frozen=True, slots=True)
class Guesses:
    """What an auditor guessed.

    Attributes:
        canaries: m, each in by a fair coin.
        made: r, how many coins were guessed.
        right: v, how many of these guesses are right.
    """

    canaries: int
    made: int
    right: int


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return how likely so many right guesses are at most, if the mechanism keeps its promise.

    Args:
        guesses: with 0 <= right <= made <= canaries.
        epsilon: of the promise, at least 0.
        delta: of the promise, in [0, 1].

    Raises:
        BadSettings: the numbers cannot be counts of guesses, or the promise is none.
    """
    m, r, v = guesses.canaries, guesses.made, guesses.right
    if not (0 <= v <= r <= m and epsilon >= 0 and 0 <= delta <= 1):
        raise BadSettings(
            "An audit has 0 <= right <= guessed <= canaries, epsilon from 0, delta in [0, 1].",
            f"{v}, {r}, {m}, epsilon {epsilon!r}, delta {delta!r}", "Correct the counts.",
        )  # fmt: skip
    chance = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(binom.sf(v - 1, r, chance))
    if delta == 0 or v == 0:
        return min(beta, 1.0)
    short = np.arange(1, v + 1)
    below = np.cumsum(binom.pmf(v - short, r, chance))
    alpha = float(np.max(below / short))
    return min(beta + 2 * m * delta * alpha, 1.0)


def epsilon_lower_bound(guesses: Guesses, delta: float, confidence: float = 0.95) -> float:
    """Return an epsilon that the mechanism exceeds, with this confidence; 0 says nothing.

    Args:
        guesses: of the auditor.
        delta: at which the bound is stated, in [0, 1).
        confidence: in (0, 1).

    Raises:
        BadSettings: as `p_value`, or a confidence that is none.
    """
    if not 0 < confidence < 1:
        raise BadSettings(
            "A confidence lies between 0 and 1.", f"{confidence!r}", "Use 0.95."
        )  # fmt: skip
    level = 1.0 - confidence
    if p_value(guesses, 0.0, delta) >= level:
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        if p_value(guesses, middle, delta) < level:
            low = middle
        else:
            high = middle
    return low


def most_certifiable(canaries: int, delta: float = 0.0, confidence: float = 0.95) -> float:
    """Return the largest bound that so many canaries can give: all guessed, all right."""
    return epsilon_lower_bound(Guesses(canaries, canaries, canaries), delta, confidence)


def guess(
    scores: NDArray[np.float64], coins: NDArray[np.bool_], share: float = GUESSED_SHARE
) -> Guesses:
    """Guess the canaries of the highest scores as in, of the lowest as out, and count.

    Args:
        scores: shape (m,); higher where the attacker believes that a canary is in.
        coins: shape (m,), the truth.
        share: of the canaries to guess at each end.

    Raises:
        BadSettings: scores that are not finite, or fewer than two canaries.
    """
    m = len(scores)
    if m < 2 or scores.shape != coins.shape or not np.isfinite(scores).all():
        raise BadSettings(
            "An audit has a finite score for each of two canaries or more.",
            f"{m} scores for {len(coins)} coins", "Run the mechanism again.",
        )  # fmt: skip
    each = min(m // 2, max(LEAST_GUESSES, round(share * m)))
    order = np.argsort(scores, kind="stable")
    right = int(coins[order[m - each :]].sum() + (~coins[order[:each]]).sum())
    return Guesses(m, 2 * each, right)
