"""Between real deltas and integers: stochastic rounding on the device, the mean on the server."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadSettings, RoundAborted
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.rotation import unrotate
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import Aggregate

_MOST_TRIES = 256
"""A try fails with probability at most 1 - exp(-1/2): all fail once in 2**170."""


def round_within_norm(
    scaled: NDArray[np.float64], norm_bound: int, randomness: Randomness
) -> NDArray[np.int64]:
    """Return a stochastic rounding whose squared L2 norm is at most the bound.

    Unbiased but for the condition. Source: Kairouz, Liu, Steinke 2021, section 3, algorithm 1.

    Args:
        scaled: shape (d,), float64, clipped and in steps.
        norm_bound: largest squared norm, in steps squared.
        randomness: of the rounding.

    Returns:
        shape (d,), int64.

    Raises:
        BadSettings: no rounding met the bound, which says that `scaled` was not clipped to it.
    """
    lower = np.floor(scaled)
    # The fraction as a 53-bit integer: comparing it with 53 random bits is exact.
    fraction = ((scaled - lower) * 2.0**53).astype(np.uint64)
    whole = lower.astype(np.int64)
    for _ in range(_MOST_TRIES):
        up = (randomness.uint64(len(scaled)) >> np.uint64(11)) < fraction
        rounded = whole + up
        if squared_norm(rounded) <= norm_bound:
            return rounded
    raise BadSettings(
        "A delta is clipped before it is rounded.", "one longer than the clip", "Clip it first."
    )


def squared_norm(values: NDArray[np.int64]) -> int:
    """Return the exact squared L2 norm, for values below 2**31 in size."""
    # Each square is below 2**62; halves keep every partial sum of up to 2**31 terms inside int64.
    squares = values * values
    return (int((squares >> 31).sum()) << 31) + int((squares & (2**31 - 1)).sum())


def mean_delta(aggregate: Aggregate, terms: RoundTerms, seed: bytes) -> NDArray[np.float64]:
    """Return the noisy mean of the survivors' deltas.

    Args:
        aggregate: the sum over the survivors, in steps.
        terms: of the round.
        seed: of the round's rotation, 32 bytes; read only where the terms state one.

    Returns:
        shape (d,), float64, in units of the delta.
    """
    values = aggregate.values[: terms.dimension].astype(np.float64)
    mean = values / (terms.scale * len(aggregate.survivors))
    return unrotate(mean, seed) if terms.rotation else mean


def share_within(aggregate: Aggregate, terms: RoundTerms) -> float | None:
    """Return the noisy share of survivors whose deltas were within the clip, None without bits.

    It is an estimate: noise may bring it below 0 or above 1. Source: Andrew et al. 2021, section 3.

    Args:
        aggregate: the sum over the survivors, in steps.
        terms: of the round.
    """
    if not terms.bit_steps:
        return None
    return 0.5 + float(aggregate.values[-1]) / (2 * terms.bit_steps * len(aggregate.survivors))


def check_norm(aggregate: Aggregate, terms: RoundTerms) -> None:
    """Return if the sum is one that clipped deltas and honest noise can give.

    The noise of n devices is a sub-Gaussian vector: its norm exceeds
    sqrt(n variance) (sqrt(d) + sqrt(2 ln 2**40)) at most once in 2**40 rounds (Hsu, Kakade, Zhang
    2012, theorem 2.1). A longer sum holds somebody's unclipped or random values; a shorter one may
    still be spoiled within the bound.

    Raises:
        RoundAborted: the sum is longer.
    """
    n, d = len(aggregate.survivors), terms.length
    noise = math.sqrt(n * terms.client_variance) * (math.sqrt(d) + math.sqrt(80 * math.log(2)))
    bound = n * terms.sensitivity + noise
    norm = float(np.linalg.norm(aggregate.values.astype(np.float64)))
    if norm > bound:
        raise RoundAborted(
            f"The sum of {n} clipped and noised deltas has a norm of at most {bound:.4g} steps.",
            f"a norm of {norm:.4g}",
            "Keep the old adapter; a device sent values that were not clipped.",
        )
