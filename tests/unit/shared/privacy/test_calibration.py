"""Plans: the noise meets the goal and not by far, and what cannot be is refused."""

from __future__ import annotations

import math

import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.calibration import epsilon_after, least_noise, plan_budget

GOAL = {
    "clients": 40, "rounds": 4, "epsilon": 4.0, "delta": 1e-5, "dimension": 320, "gamma": 0.0,
    "dropout": 0.15,
}  # fmt: skip


@pytest.mark.parametrize(("rounds", "epsilon", "delta"), [(1, 1.0, 1e-5), (10, 8.0, 1e-3)])
def test_the_least_noise_meets_the_goal_and_a_little_less_does_not(rounds, epsilon, delta):
    noise = least_noise(rounds, epsilon, delta)
    assert epsilon_after(noise, rounds, delta) <= epsilon
    assert epsilon_after(noise * 0.999, rounds, delta) > epsilon


def test_four_times_the_rounds_ask_for_twice_the_noise():
    one, four = (least_noise(rounds, 4.0, 1e-5) for rounds in (1, 4))
    assert four == pytest.approx(2 * one, rel=1e-3)
    assert epsilon_after(one, 0, 1e-5) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"delta": 0.0}, {"delta": 1.0}, {"delta": math.nan}, {"epsilon": -1.0},
        {"epsilon": 0.0}, {"epsilon": math.nan}, {"epsilon": math.inf}, {"rounds": 0},
        {"rounds": -3}, {"clients": 1}, {"clients": 10**6}, {"dimension": 0}, {"gamma": 0.5},
        {"epsilon": 1e-9},
    ],
)  # fmt: skip
def test_a_goal_out_of_range_is_refused(bad):
    with pytest.raises(BadSettings):
        plan_budget(**{**GOAL, **bad})


def test_noise_is_sized_for_those_who_may_be_left():
    plan = plan_budget(**GOAL)
    survivors, honest = plan.cohort.thresholds.min_survivors, plan.cohort.min_honest
    by_hand = plan.noise_multiplier * math.sqrt(survivors / honest) * math.sqrt(320) / survivors
    assert plan.noise_to_signal == pytest.approx(by_hand)
    assert plan.noise_to_signal_all < plan.noise_to_signal
    assert plan.cohort_to_see == math.ceil(plan.noise_multiplier * math.sqrt(320))
    assert plan.cohort_to_learn > 3 * plan.cohort_to_see
    assert plan.reached <= 4.0
