"""Segment-level differential privacy of DP-SGD on a device, by two accountants of dp-accounting.

The unit is one training segment; two data sets are neighbours if one has a segment that the other
lacks. Each step takes every segment with the same secret chance (Poisson sampling) and adds
Gaussian noise to the sum of clipped gradients. The Renyi accountant bounds the moments (Mironov
2017); the accountant of privacy loss distributions convolves discretised losses (Koskela et al.
2020) and is exact but for its grid. Both are upper bounds. The larger one is enforced; a convolved
figure above the moments' by more than the grid explains shows a fault, and nothing may be trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import dp_accounting
from dp_accounting import pld, rdp

from chorister.shared.errors import BadAccounting
from chorister.shared.privacy.events import ONE_SEGMENT, Epsilon, PrivacyEvent
from chorister.shared.privacy.figures import (
    GroupFigure,
    PrivacyFigure,
    check_delta,
    group_figure,
)

UNIT = "one segment"
RELATION = ONE_SEGMENT


def segment_accountant(delta: float) -> Epsilon:
    """Return the function from booked events to epsilon at a delta, for a budget's limit."""
    return lambda events: segment_figure(events, delta).epsilon


def segment_figure(events: Sequence[PrivacyEvent], delta: float) -> PrivacyFigure:
    """Return the segment-level figure of all training on one device.

    Args:
        events: of mechanisms for this unit; any other makes the figure infinite.
        delta: in (0, 1).

    Raises:
        BadSettings: delta is out of range.
        BadAccounting: the two accountants contradict each other.
    """
    check_delta(delta)
    if not all(e.protects("segment") for e in events):
        figures = {"RDP": math.inf, "PLD": math.inf}
    else:
        kinds = _kinds(events)
        figures = {"RDP": _epsilon_rdp(kinds, delta), "PLD": _epsilon_pld(kinds, delta)}
        _compare(figures, sum(n for _, _, n in kinds))
    return PrivacyFigure(UNIT, RELATION, max(figures.values()), delta, figures)


def recording_figure(events: Sequence[PrivacyEvent], segments: int, delta: float) -> GroupFigure:
    """Return what all training on one device says about a whole recording: group privacy.

    By the Renyi accountant alone, which is the larger one at the deltas that a group needs.

    Args:
        events: of mechanisms for this unit; any other makes the figure infinite.
        segments: how many segments the recording gave, at least 1.
        delta: in (0, 1).
    """
    check_delta(delta)
    if not all(e.protects("segment") for e in events):
        return GroupFigure(segments, math.inf, delta)
    kinds = _kinds(events)
    return group_figure(lambda smaller: _epsilon_rdp(kinds, smaller), segments, delta)


# Below it an epsilon in the thousands would need more memory than a device has: no guarantee.
LEAST_NOISE = 0.02

GRID = 1e-3
"""Spacing of the discretised losses: each step adds at most this much to the epsilon."""

Kinds = tuple[tuple[float, float, int], ...]
# Whole orders have a finite sum; the series for fractional ones does not always converge.
_ORDERS = (*range(2, 129), *range(136, 513, 8), 1024)


def _kinds(events: Sequence[PrivacyEvent]) -> Kinds:
    # Events of one kind compose as one: accountants are slow per event, not per step.
    steps: dict[tuple[float, float], int] = {}
    for e in events:
        kind = (e.noise_multiplier, e.sample_rate)
        steps[kind] = steps.get(kind, 0) + e.steps
    return tuple((z, q, n) for (z, q), n in sorted(steps.items()))


def _compare(figures: dict[str, float], steps: int) -> None:
    """Refuse figures of which one must be wrong. NaN is refused as well."""
    least_noise = math.inf in figures.values()
    if not least_noise and not figures["PLD"] <= figures["RDP"] + GRID * steps + 1e-6:
        raise BadAccounting(
            "The convolved epsilon is at most the moments' epsilon and the grid's error, "
            f"{GRID * steps:.2g} for {steps} steps.",
            ", ".join(f"{name} {value!r}" for name, value in figures.items()),
            "Nothing may be trained. Install the versions of dp-accounting that the tests ran on.",
        )


@lru_cache(maxsize=1024)
def _epsilon_rdp(kinds: Kinds, delta: float) -> float:
    return float(_moments(kinds).get_epsilon(delta))


@lru_cache(maxsize=256)
def _moments(kinds: Kinds) -> rdp.RdpAccountant:
    # The moments are slow to bound and quick to read at another delta.
    accountant = rdp.RdpAccountant(_ORDERS)
    for event in _events(kinds):
        accountant.compose(event)
    return accountant


@lru_cache(maxsize=1024)
def _epsilon_pld(kinds: Kinds, delta: float) -> float:
    if any(z < LEAST_NOISE for z, _, _ in kinds):
        return math.inf
    accountant = pld.PLDAccountant(value_discretization_interval=GRID)
    for event in _events(kinds):
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def _events(kinds: Kinds) -> list[dp_accounting.DpEvent]:
    return [
        dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)), n
        )
        for z, q, n in kinds
    ]
