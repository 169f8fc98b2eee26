"""How the mean delta of a round becomes the next shared adapter, and its clip the next clip.

Source: FedAvg, McMahan et al. 2017; FedAdam, Reddi et al. 2021, algorithm 2; the clip, Andrew et
al. 2021, section 3. All see only the noisy sum, so whatever they do costs no further privacy
(post-processing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import RoundAborted
from chorister.shared.settings import AdaptiveClip, Aggregation
from chorister.shared.types import Adapter

BETA_1, BETA_2, TAU = 0.9, 0.99, 1e-3


@dataclass(frozen=True, slots=True)
class OptimiserState:
    """What the server remembers between rounds.

    Attributes:
        first: shape (d,), float64, FedAdam's running mean of deltas.
        second: shape (d,), float64, its running mean of squares.
        clip_norm: that an adaptive clip has come to; None before it first adapts.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    clip_norm: float | None = None

    @classmethod
    def initial(cls, d: int) -> OptimiserState:
        """Return the state before the first round."""
        return cls(np.zeros(d), np.full(d, TAU**2))


def next_adapter(
    adapter: Adapter, mean_delta: NDArray[np.float64], state: OptimiserState, settings: Aggregation
) -> tuple[Adapter, OptimiserState]:
    """Return the new shared adapter and the optimiser's new state.

    Args:
        adapter: shape (d,), the version that the clients trained from.
        mean_delta: shape (d,), mean over the survivors.
        state: of the server optimiser.
        settings: which optimiser, and its learning rate.

    Raises:
        RoundAborted: the delta is not finite or of another size.
    """
    if mean_delta.shape != adapter.values.shape or not np.all(np.isfinite(mean_delta)):
        raise RoundAborted(
            f"The mean delta has {len(adapter.values)} finite values.",
            f"shape {mean_delta.shape}, finite: {bool(np.all(np.isfinite(mean_delta)))}",
            "The round is dropped; the adapter stays as it was.",
        )
    rate = settings.server_learning_rate
    if settings.optimiser == "fedavg":
        step = rate * mean_delta
    else:
        state = OptimiserState(
            BETA_1 * state.first + (1 - BETA_1) * mean_delta,
            BETA_2 * state.second + (1 - BETA_2) * mean_delta**2,
            state.clip_norm,
        )
        step = rate * state.first / (np.sqrt(state.second) + TAU)
    values = (adapter.values.astype(np.float64) + step).astype(np.float32)
    return Adapter(values, adapter.spec), state


def next_clip(clip_norm: float, within: float, settings: AdaptiveClip) -> float:
    """Return the next round's clip norm: lower if more deltas than wanted were within this one.

    Args:
        clip_norm: of the round.
        within: noisy share of the survivors whose deltas were within it; noise may bring it out of
            [0, 1], and it counts as the nearer end then.
        settings: which share is wanted, how fast to follow, and the range of the clip.
    """
    share = min(1.0, max(0.0, within))
    moved = clip_norm * math.exp(-settings.learning_rate * (share - settings.quantile))
    return min(settings.most_norm, max(settings.least_norm, moved))
