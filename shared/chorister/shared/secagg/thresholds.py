"""From cohort, corruption and drop-outs to neighbours and thresholds (docs/protocol.md, section 4).

Nothing here is typed in by an operator: every device derives the same numbers from the terms and
the size of the roster. Source: Bonawitz et al. 2017, section 6.2; Bell et al. 2020, sections 3.5
and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from chorister.shared.errors import RoundAborted
from chorister.shared.secagg.chances import (
    binomial_cdf,
    log_binomial_at_most,
    log_choose,
    log_choose_table,
    log_hypergeometric_at_least,
    log_hypergeometric_table,
)

SECURITY_BITS = 40
# Two parts of the failure are bounded by a quarter each, and a third by the rest.
_BUDGET = -(SECURITY_BITS + 2) * math.log(2)
ABORT_TARGET = 0.01
"""Thresholds leave room for the drop-outs that 99 honest rounds out of 100 stay below."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The derived parameters of one round.

    Attributes:
        roster: n, devices in the roster.
        corrupt: most devices of the roster assumed corrupt.
        neighbours: k, how many neighbours each device chooses.
        share_threshold: t, shares that reconstruct a secret, of the k + 1 that exist.
        vote_quorum: signatures under one survivor set before a device reveals anything.
        min_honest: honest devices that every released sum covers.
        hidden: honest survivors that a lying server may leave out of the sum unnoticed.
        min_survivors: masked inputs needed: min_honest + corrupt + hidden, at least the thresholds.
        log2_failure: base-2 logarithm of the bound on the probability that the random choice of
            neighbours lets a server with `corrupt` devices break privacy; -inf if impossible.
    """

    roster: int
    corrupt: int
    neighbours: int
    share_threshold: int
    vote_quorum: int
    min_honest: int
    hidden: int
    min_survivors: int
    log2_failure: float

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.neighbours == self.roster - 1

    def abort_probability(self, dropout: float) -> float:
        """Return a bound on the probability that an honest round aborts, in [0, 1].

        Args:
            dropout: chance that a device of the roster drops out at some stage, independently.
        """
        n, needed = self.roster, max(self.min_survivors, self.vote_quorum, self.share_threshold)
        too_few = binomial_cdf(n, 1 - dropout, needed - 1)
        if self.complete:
            return too_few
        # A secret is lost if fewer than t of its k holders stay; union bound over all secrets,
        # given as few devices as a round that does not abort may keep.
        stay = range(needed, n + 1)
        lost = 0.0
        for alive in stay:
            chance = math.exp(_log_exactly(n, 1 - dropout, alive))
            if chance > 0:
                missing = log_hypergeometric_at_least(
                    n - 1, min(n - 1, n - alive), self.neighbours,
                    self.neighbours - self.share_threshold + 1,
                )  # fmt: skip
                lost += chance * min(1.0, n * math.exp(missing))
        return min(1.0, too_few + lost)


@lru_cache(maxsize=256)
def derive(roster: int, cohort: int, gamma: float, dropout: float, min_honest: int) -> Thresholds:
    """Return the thresholds for a roster.

    Args:
        roster: n, devices that advertised keys.
        cohort: devices invited, at least n.
        gamma: assumed corrupt fraction of the cohort, in [0, 1/3). All of the corrupt devices
            count, however few of the honest ones came.
        dropout: assumed drop-out fraction, in [0, 1/2].
        min_honest: honest devices that every released sum must cover.

    Raises:
        RoundAborted: too few devices came for these assumptions.
    """
    corrupt = corrupt_devices(cohort, gamma)
    quorum = (roster + corrupt) // 2 + 1
    best = _sparse(roster, corrupt, dropout, min_honest, quorum)
    if best is None or 4 * best.neighbours > roster:
        # A device that chooses k is chosen by k more: the complete graph costs at most twice as
        # much there, and is safe without any chance.
        best = _complete(roster, corrupt, min_honest, quorum)
    if best.min_survivors > roster or best.share_threshold > roster:
        raise RoundAborted(
            f"With {corrupt} devices assumed corrupt and min_honest {min_honest}, a round needs "
            f"{max(best.min_survivors, best.share_threshold)} devices.",
            f"{roster} devices in the roster",
            "Wait for more devices, or plan the run for a smaller cohort.",
        )
    return best


def corrupt_devices(cohort: int, gamma: float) -> int:
    """Return how many devices of the cohort are assumed corrupt: the floor of gamma x cohort."""
    return math.floor(gamma * cohort + 1e-9)


@lru_cache(maxsize=256)
def quantile_survivors(n: int, dropout: float) -> int:
    """Return the most survivors that a round may require and abort once in a hundred times."""
    m = n
    while m > 1 and binomial_cdf(n, 1 - dropout, m - 1) > ABORT_TARGET:
        m -= 1
    return m


def _complete(n: int, c: int, min_honest: int, quorum: int) -> Thresholds:
    # Deterministic: two sets of t among n, of which c answer twice, share an honest device.
    t = (n + c) // 2 + 1
    survivors = max(min_honest + c, t, quorum)
    return Thresholds(n, c, n - 1, t, quorum, min_honest, 0, survivors, -math.inf)


def _sparse(n: int, c: int, dropout: float, min_honest: int, quorum: int) -> Thresholds | None:
    """Return the thresholds of the sparsest safe graph, or None if only the complete one is."""
    low, high = 8, 8
    while high < n - 1 and _fit(n, c, dropout, min_honest, quorum, high) is None:
        low, high = high + 1, high * 2
    if high >= n - 1:
        high = n - 2
        if low > high or _fit(n, c, dropout, min_honest, quorum, high) is None:
            return None
    while low < high:
        middle = (low + high) // 2
        if _fit(n, c, dropout, min_honest, quorum, middle) is None:
            low = middle + 1
        else:
            high = middle
    return _fit(n, c, dropout, min_honest, quorum, low)


def _fit(n: int, c: int, dropout: float, min_honest: int, quorum: int, k: int) -> Thresholds | None:
    """Return the thresholds for k neighbours, or None if k is too small."""
    share = _share_threshold(n, c, dropout, k)
    if share is None:
        return None
    t, failure = share
    found = _hidden(n, c, k, min_honest, quorum)
    if found is None:
        return None
    hidden, left_out = found
    total = float(np.logaddexp(failure, left_out)) / math.log(2)
    survivors = max(min_honest + c + hidden, quorum)
    return Thresholds(n, c, k, t, quorum, min_honest, hidden, survivors, total)


@lru_cache(maxsize=1024)
def _share_threshold(n: int, c: int, dropout: float, k: int) -> tuple[int, float] | None:
    """Return the least safe threshold and the log of its failure, None if it loses secrets."""
    alive = quantile_survivors(n, dropout)
    for t in range(k // 2 + 1, k + 1):
        # Liveness: of k holders, enough stay among the drop-outs that are planned for.
        lost = math.log(n) + log_hypergeometric_at_least(n - 1, n - alive, k, k - t + 1)
        if lost > math.log(ABORT_TARGET):
            return None
        # Both kinds of share, or two views: needs 2t <= k + 1 + (corrupt neighbours).
        both = math.log(n - c) + log_hypergeometric_at_least(n - 1, c, k, 2 * t - k - 1)
        if both > _BUDGET:
            continue
        apart = _log_small_part(n, c, k, t)
        if apart <= _BUDGET:
            return t, float(np.logaddexp(both, apart))
    return None


def _log_small_part(n: int, c: int, k: int, t: int) -> float:
    """Bound the probability that some part of at most half of the honest keeps to itself.

    Each member of such a part has t - 1 of its k chosen neighbours in the part or among the
    corrupt.
    """
    honest = n - c
    sizes = np.arange(1, honest // 2 + 1)
    inside = log_hypergeometric_table(n - 1, sizes - 1 + c, k, t - 1)
    return float(np.logaddexp.reduce(log_choose_table(honest, sizes) + sizes * inside))


@lru_cache(maxsize=1024)
def _hidden(n: int, c: int, k: int, min_honest: int, quorum: int) -> tuple[int, float] | None:
    """Return (most honest survivors that can be left out, log of the probability of more).

    A set can be left out if the declared drop-outs cover everyone who chose one of its members.
    """
    for hidden in range(0, n - c - min_honest + 1):
        dropped = n - max(min_honest + c + hidden, quorum)
        if dropped < 0:
            return None
        total = _log_left_out(n, c, k, hidden, dropped)
        if total <= _BUDGET:
            return hidden, total
    return None


def _log_left_out(
    n: int, c: int, k: int, hidden: int, dropped: int, stop: float = _BUDGET
) -> float:
    """Return the bound, or any number above `stop` once it is there."""
    honest = n - c
    total = -math.inf
    for b in range(hidden + 1, honest // 2 + 1):
        chosen_by = -math.expm1(log_choose(n - 1 - b, k) - log_choose(n - 1, k))
        term = log_choose(honest, b) + log_binomial_at_most(honest - b, chosen_by, dropped)
        total = float(np.logaddexp(total, term))
        if total > stop:
            break
    return total


def _log_exactly(n: int, p: float, m: int) -> float:
    if p >= 1:
        return 0.0 if m == n else -math.inf
    return log_choose(n, m) + m * math.log(p) + (n - m) * math.log1p(-p)
