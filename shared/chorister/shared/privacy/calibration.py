"""From a privacy goal to the noise that meets it, and to the cohort that can still learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.figures import check_delta, check_epsilon
from chorister.shared.privacy.speaker_level import speaker_figure
from chorister.shared.secagg.planning import CohortPlan, plan_cohort

MOST_NOISE = 1e3
"""What the terms of a round may state at most."""
WANTED_RATIO = 0.3
"""Noise over signal at which a round still learns, measured in simulations."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What a privacy goal asks of a federation.

    Attributes:
        clients: devices in a round's cohort.
        rounds: that every speaker takes part in.
        epsilon: that was asked for.
        delta: of it.
        noise_multiplier: the least that meets it, standard deviation over the clip norm.
        reached: epsilon with that noise.
        noise_to_signal: norm of the noise in the mean over the clip norm, if all deltas agree.
        noise_to_signal_all: the same if nobody drops out, when more noise is added.
        cohort_to_learn: devices at which noise over signal falls to 0.3.
        cohort_to_see: devices at which noise equals the signal.
        cohort: what follows for thresholds; None where so few devices cannot run a round.
    """

    clients: int
    rounds: int
    epsilon: float
    delta: float
    noise_multiplier: float
    reached: float
    noise_to_signal: float
    noise_to_signal_all: float
    cohort_to_learn: int
    cohort_to_see: int
    cohort: CohortPlan


def epsilon_after(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return the speaker-level epsilon after so many rounds; 0 after none."""
    event = PrivacyEvent(SPEAKER_MECHANISM, noise_multiplier, 1.0, max(rounds, 1))
    return speaker_figure([event] if rounds else [], delta).epsilon


def least_noise(rounds: int, epsilon: float, delta: float) -> float:
    """Return the smallest noise multiplier whose rounds stay within epsilon, to 1 in 10 000.

    Args:
        rounds: at least 1.
        epsilon: above 0.
        delta: in (0, 1).

    Raises:
        BadSettings: a value out of range, or no noise up to 1000 meets it.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    if rounds < 1:
        raise BadSettings("A plan has at least one round.", f"{rounds}", "Change --rounds.")
    low, high = 1e-2, MOST_NOISE
    if not epsilon_after(high, rounds, delta) <= epsilon:
        raise BadSettings(
            f"Some noise multiplier up to {MOST_NOISE:g} meets the goal.",
            f"epsilon {epsilon:g} at delta {delta:g} over {rounds} rounds",
            "Ask for fewer rounds or a larger epsilon; a delta of 1e-9 and above.",
        )
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        if epsilon_after(middle, rounds, delta) <= epsilon:
            high = middle
        else:
            low = middle
    return high


def plan_budget(
    *, clients: int, rounds: int, epsilon: float, delta: float, dimension: int, gamma: float,
    dropout: float,
) -> BudgetPlan:  # fmt: skip
    """Return what a goal asks for.

    Args:
        clients: devices in a round's cohort, at least 2.
        rounds: that every speaker takes part in.
        epsilon: the most that a speaker may spend.
        delta: of it.
        dimension: d, values in the shared adapter.
        gamma: assumed corrupt fraction of the cohort.
        dropout: assumed drop-out fraction.

    Raises:
        BadSettings: a value out of range, or nothing meets it.
    """
    if dimension < 1:
        raise BadSettings("An adapter has at least one value.", f"{dimension}", "Change --dim.")
    cohort = plan_cohort(clients, gamma, dropout)
    noise = least_noise(rounds, epsilon, delta)
    root_d = math.sqrt(dimension)
    survivors = cohort.thresholds.min_survivors
    share = survivors / cohort.min_honest
    return BudgetPlan(
        clients, rounds, epsilon, delta, noise, epsilon_after(noise, rounds, delta),
        noise * math.sqrt(share) * root_d / survivors,
        noise * math.sqrt(clients / cohort.min_honest) * root_d / clients,
        math.ceil(noise * root_d / WANTED_RATIO), math.ceil(noise * root_d), cohort,
    )  # fmt: skip
