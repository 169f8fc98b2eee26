"""Tails of the binomial and the hypergeometric distribution, in logarithms."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LIMIT = 2**13


@lru_cache(maxsize=1)
def _log_factorials() -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, LIMIT, dtype=np.float64)))])


def log_choose(n: int, m: int) -> float:
    """Return the logarithm of the binomial coefficient, -inf where it is 0; n below 8192."""
    if m < 0 or m > n:
        return -math.inf
    table = _log_factorials()
    return float(table[n] - table[m] - table[n - m])


def log_hypergeometric_at_least(population: int, marked: int, drawn: int, least: int) -> float:
    """Return log P(at least `least` of `drawn` without replacement are marked).

    Args:
        population: size of the population, below 8192.
        marked: how many of it are marked.
        drawn: how many are drawn.
        least: lower bound of the count.
    """
    first = max(least, 0, drawn - (population - marked))
    last = min(drawn, marked)
    if least <= max(0, drawn - (population - marked)):
        return 0.0
    if first > last:
        return -math.inf
    f = _log_factorials()
    hits = np.arange(first, last + 1)
    rest = population - marked
    logs = (
        f[marked] - f[hits] - f[marked - hits]
        + f[rest] - f[drawn - hits] - f[rest - drawn + hits]
        - log_choose(population, drawn)
    )  # fmt: skip
    return min(0.0, float(np.logaddexp.reduce(logs)))


def log_choose_table(n: int, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithms of n over each size, shape of sizes; sizes at most n."""
    f = _log_factorials()
    table: NDArray[np.float64] = f[n] - f[sizes] - f[n - sizes]
    return table


def log_hypergeometric_table(
    population: int, marked: NDArray[np.int64], drawn: int, least: int
) -> NDArray[np.float64]:
    """Return log P(at least `least` marked) for several numbers of marked, shape of marked.

    Args:
        population: size of the population, below 8192.
        marked: shape (m,), at most the population.
        drawn: how many are drawn, at most half of the population.
        least: lower bound of the count, at least 0.
    """
    f = _log_factorials()
    hits = np.arange(least, drawn + 1)[None, :]
    white = marked[:, None]
    black = population - white
    possible = (hits <= white) & (drawn - hits <= black)
    h = np.where(possible, hits, 0)
    logs = (
        f[white] - f[h] - f[np.abs(white - h)]
        + f[black] - f[drawn - h] - f[np.abs(black - drawn + h)]
        - log_choose(population, drawn)
    )  # fmt: skip
    table: NDArray[np.float64] = np.logaddexp.reduce(np.where(possible, logs, -np.inf), axis=1)
    return np.minimum(table, 0.0)


def log_binomial_at_most(n: int, p: float, most: int) -> float:
    """Return log P(Binomial(n, p) <= most), n below 8192, p in [0, 1]."""
    if most >= n or p <= 0:
        return 0.0
    if most < 0 or p >= 1:
        return -math.inf
    f = _log_factorials()
    hits = np.arange(0, most + 1)
    logs = f[n] - f[hits] - f[n - hits] + hits * math.log(p) + (n - hits) * math.log1p(-p)
    return min(0.0, float(np.logaddexp.reduce(logs)))


def binomial_cdf(n: int, p: float, most: int) -> float:
    """Return P(Binomial(n, p) <= most)."""
    return math.exp(log_binomial_at_most(n, p, most))
