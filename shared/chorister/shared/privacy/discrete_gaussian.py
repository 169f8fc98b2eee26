"""Exact samples of the discrete Gaussian, in integer arithmetic on a cryptographic generator.

The mass at x is proportional to exp(-x**2 / (2 variance)). No floating-point number takes part, so
the attack on naive Gaussian noise (Mironov 2012) has nothing to hold on to. Source: Canonne,
Kamath, Steinke 2020, algorithms 1 to 3; here they run on whole arrays, and every accepted element
has taken the same decisions as in the scalar form.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadSettings
from chorister.shared.randomness import Randomness

MAX_VARIANCE = 2**26
"""Up to here every product below fits into 64 bits."""
_FARTHEST = 2**32
"""A candidate x with x t beyond it is 63 deviations out: kept with chance below e**-1900."""

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def discrete_gaussian(variance: int, n: int, randomness: Randomness) -> NDArray[np.int64]:
    """Return n independent samples, shape (n,), int64.

    Args:
        variance: parameter sigma**2, 1 to 2**26; the variance of the samples is no larger.
        n: how many.
        randomness: of every decision.

    Raises:
        BadSettings: variance out of range.
    """
    if not 1 <= variance <= MAX_VARIANCE:
        raise BadSettings(
            f"The noise has a variance parameter of 1 to {MAX_VARIANCE}.", str(variance),
            "Choose another scale; `chorister secagg plan` does.",
        )  # fmt: skip
    found: list[NDArray[np.int64]] = []
    missing = n
    while missing > 0:
        accepted = _candidates(variance, missing + missing // 4 + 32, randomness)[:missing]
        found.append(accepted)
        missing -= len(accepted)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _candidates(variance: int, n: int, randomness: Randomness) -> NDArray[np.int64]:
    """Return the accepted ones of about n draws of a discrete Laplace (algorithm 3)."""
    t = math.isqrt(variance) + 1
    size = _laplace_size(t, n + n // 2, randomness)
    negative = _below(2, len(size), randomness).astype(np.bool_)
    # Zero has two signs; one of them is refused, so that it does not count twice.
    keep = (size * np.uint64(t) < np.uint64(_FARTHEST)) & ~(negative & (size == 0))
    size, negative = size[keep], negative[keep]
    distance = np.abs((size * np.uint64(t)).astype(np.int64) - variance).astype(np.uint64)
    kept = _bernoulli_exp(distance * distance, 2 * variance * t * t, randomness)
    size, negative = size[kept].astype(np.int64), negative[kept]
    signed: NDArray[np.int64] = np.where(negative, -size, size)
    return signed


def _laplace_size(t: int, n: int, randomness: Randomness) -> Words:
    """Return |x| for candidates x of a discrete Laplace of scale t (algorithm 2, but for signs)."""
    offset = _below(t, n, randomness)
    offset = offset[_bernoulli_exp(offset, t, randomness)]
    whole = np.zeros(len(offset), dtype=np.uint64)
    running = np.arange(len(offset))
    while len(running):
        one = np.ones(len(running), dtype=np.uint64)
        running = running[_bernoulli_exp(one, 1, randomness)]
        whole[running] += np.uint64(1)
    return offset + np.uint64(t) * whole


def _bernoulli_exp(numerator: Words, denominator: int, randomness: Randomness) -> Mask:
    """Return which elements won, with chance exp(-numerator / denominator) (algorithm 1)."""
    bound = np.uint64(denominator)
    wins = np.zeros(len(numerator), dtype=np.bool_)
    running, whole = np.arange(len(numerator)), numerator // bound
    while len(running):
        waiting = whole[running] > 0
        done = running[~waiting]
        wins[done] = _below_one(numerator[done] % bound, denominator, randomness)
        running = running[waiting]
        whole[running] -= np.uint64(1)
        one = np.ones(len(running), dtype=np.uint64)
        running = running[_below_one(one, 1, randomness)]
    return wins


def _below_one(numerator: Words, denominator: int, randomness: Randomness) -> Mask:
    """The same for numerator at most denominator: von Neumann's alternating series."""
    wins = np.ones(len(numerator), dtype=np.bool_)
    running = np.arange(len(numerator))
    factor = 1
    while len(running):
        # A chance of numerator / (denominator factor) as two independent events.
        won = _below(denominator, len(running), randomness) < numerator[running]
        if factor > 1:
            won &= _below(factor, len(running), randomness) == 0
        running = running[won]
        wins[running] = ~wins[running]
        factor += 1
    return wins


def _below(bound: int, n: int, randomness: Randomness) -> Words:
    """Return n uniform integers in [0, bound), by rejection."""
    words = randomness.uint64(n)
    limit = 2**64 - 2**64 % bound
    if limit < 2**64:
        late = words >= np.uint64(limit)
        while late.any():
            words[late] = randomness.uint64(int(late.sum()))
            late = words >= np.uint64(limit)
    return words % np.uint64(bound)
