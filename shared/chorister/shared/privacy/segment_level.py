"""Segment-level differential privacy of DP-SGD on a device, by two accountants of dp-accounting.

The unit is one training segment; two data sets are neighbours if one has a segment that the other
lacks. Each step takes every segment with the same secret chance (Poisson sampling) and adds
Gaussian noise to the sum of clipped gradients. The Renyi accountant bounds the moments (Mironov
2017); the accountant of privacy loss distributions convolves discretised losses (Koskela et al.
2020). The larger figure is the one that is enforced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import dp_accounting
from dp_accounting import pld, rdp

from chorister.shared.privacy.budget import Epsilon, PrivacyEvent
from chorister.shared.privacy.charges import SEGMENT_MECHANISM
from chorister.shared.privacy.events import PrivacyFigure

UNIT = "one segment"
RELATION = "one training segment added or removed"


def segment_accountant(delta: float) -> Epsilon:
    """Return the function from booked events to epsilon at a delta, for a budget's limit."""
    return lambda events: segment_figure(events, delta).epsilon


def segment_figure(events: Sequence[PrivacyEvent], delta: float) -> PrivacyFigure:
    """Return the segment-level figure of all training on one device.

    Args:
        events: of the mechanism here; any other makes the figure infinite.
        delta: in (0, 1).
    """
    if any(e.mechanism != SEGMENT_MECHANISM for e in events):
        figures = {"RDP": math.inf, "PLD": math.inf}
    else:
        # Events of one kind compose as one: accountants are slow per event, not per step.
        steps: dict[tuple[float, float], int] = {}
        for e in events:
            kind = (e.noise_multiplier, e.sample_rate)
            steps[kind] = steps.get(kind, 0) + e.steps
        kinds = tuple((z, q, n) for (z, q), n in sorted(steps.items()))
        figures = {"RDP": _epsilon_rdp(kinds, delta), "PLD": _epsilon_pld(kinds, delta)}
    return PrivacyFigure(UNIT, RELATION, max(figures.values()), delta, figures)


# Below it an epsilon in the thousands would need more memory than a device has: no guarantee.
LEAST_NOISE = 0.02

Kinds = tuple[tuple[float, float, int], ...]
# Whole orders have a finite sum; the series for fractional ones does not always converge.
_ORDERS = (*range(2, 129), *range(136, 513, 8), 1024)


@lru_cache(maxsize=1024)
def _epsilon_rdp(kinds: Kinds, delta: float) -> float:
    accountant = rdp.RdpAccountant(_ORDERS)
    for event in _events(kinds):
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=1024)
def _epsilon_pld(kinds: Kinds, delta: float) -> float:
    if any(z < LEAST_NOISE for z, _, _ in kinds):
        return math.inf
    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
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
