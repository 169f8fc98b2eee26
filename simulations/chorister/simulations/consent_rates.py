"""Error rates of a check, with intervals over speakers: two pairs of one speaker are half news."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.simulations.consent_pairs import Trials

_DRAWS = 2000
_LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a limit does to trials.

    Attributes:
        false_accept: share of other speakers' statements that pass.
        false_reject: share of the speaker's own that fail.
        equal_error: the rate at which both would be equal.
        equal_error_at: the limit at which they are.
        false_accept_interval: 95 %, by drawing speakers with replacement.
        false_reject_interval: likewise.
        equal_error_interval: likewise.
        worst: the speaker who is refused most, and how often.
        speakers: how many enrolled.
    """

    false_accept: float
    false_reject: float
    equal_error: float
    equal_error_at: float
    false_accept_interval: Interval
    false_reject_interval: Interval
    equal_error_interval: Interval
    worst: tuple[str, float]
    speakers: int


def rates(trials: Trials, limit: float, seed: int) -> Rates:
    """Return the error rates of a limit.

    Args:
        trials: with pairs of both kinds for every speaker.
        limit: a statement passes from here on.
        seed: of the intervals' draws.
    """
    names = sorted(set(trials.target))
    owner = np.searchsorted(names, trials.target)
    passed = trials.score >= limit
    accepted = _by_speaker(owner, ~trials.same, passed, len(names))
    refused = _by_speaker(owner, trials.same, ~passed, len(names))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(_DRAWS, len(names)))
    equal, at = equal_error(trials.score[trials.same], trials.score[~trials.same])
    rows = [np.flatnonzero(owner == i) for i in range(len(names))]
    equals = []
    for one in drawn[: _DRAWS // 10]:
        chosen = np.concatenate([rows[i] for i in one])
        same, score = trials.same[chosen], trials.score[chosen]
        equals.append(equal_error(score[same], score[~same])[0])
    each = refused[0] / refused[1]
    return Rates(
        false_accept=float(accepted[0].sum() / accepted[1].sum()),
        false_reject=float(refused[0].sum() / refused[1].sum()),
        equal_error=equal,
        equal_error_at=at,
        false_accept_interval=_interval(accepted[0][drawn].sum(1) / accepted[1][drawn].sum(1)),
        false_reject_interval=_interval(refused[0][drawn].sum(1) / refused[1][drawn].sum(1)),
        equal_error_interval=_interval(np.array(equals)),
        worst=(names[int(each.argmax())], float(each.max())),
        speakers=len(names),
    )


def equal_error(same: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return the rate at which as many are falsely accepted as refused, and its limit.

    Args:
        same: scores of pairs of one speaker.
        other: scores of pairs of two.
    """
    same, other = np.sort(same), np.sort(other)
    limits = np.unique(np.concatenate([same, other]))
    refused = np.searchsorted(same, limits) / len(same)
    accepted = 1.0 - np.searchsorted(other, limits) / len(other)
    best = int(np.abs(refused - accepted).argmin())
    return float(refused[best] + accepted[best]) / 2.0, float(limits[best])


def limit_at(trials: Trials, false_accept: float) -> float:
    """Return the limit at which a share of other speakers' statements passes."""
    return float(np.quantile(trials.score[~trials.same], 1.0 - false_accept))


def _by_speaker(
    owner: NDArray[np.intp], chosen: NDArray[np.bool_], hit: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits = np.bincount(owner[chosen], hit[chosen].astype(np.float64), minlength=count)
    return hits.astype(np.float64), np.bincount(owner[chosen], minlength=count).astype(np.float64)


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
