"""From Renyi divergence to epsilon, in two independent ways.

Concentrated differential privacy with parameter rho bounds the divergence of order a by a rho.
`epsilon_of_rho` minimises the conversion over real orders itself; `epsilon_by_library` hands the
same rho to dp-accounting, which minimises over a grid of orders.
"""

from __future__ import annotations

import math

import dp_accounting
from dp_accounting import rdp


def epsilon_of_rho(rho: float, delta: float) -> float:
    """Return the epsilon of rho-concentrated differential privacy at delta.

    Args:
        rho: at least 0.
        delta: in (0, 1).

    Source: Canonne, Kamath, Steinke 2020, corollary 13 (conversion of proposition 12).
    """
    if rho <= 0:
        return 0.0
    if not math.isfinite(rho):
        return math.inf

    def bound(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        excess = order - 1
        return order * rho + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / excess

    # The bound has one minimum in the logarithm of (order - 1).
    low, high = -30.0, 30.0
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if bound(left) < bound(right):
            high = right
        else:
            low = left
    return max(0.0, bound((low + high) / 2))


def epsilon_by_library(rho: float, delta: float) -> float:
    """Return the same by dp-accounting's RDP accountant.

    Args:
        rho: at least 0.
        delta: in (0, 1).
    """
    accountant = rdp.RdpAccountant(
        _ORDERS, neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


# dp-accounting's default stops at 1024: much noise needs larger orders, little needs finer ones.
_ORDERS = tuple(1 + 10 ** (step / 20) for step in range(-60, 121))
