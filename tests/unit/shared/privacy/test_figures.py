"""Figures that say what they mean: labels, groups, and values that no figure can have."""

from __future__ import annotations

import math

import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.figures import (
    NO_GUARANTEE,
    PrivacyFigure,
    check_delta,
    check_epsilon,
    group_figure,
    label_of,
)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan, math.inf])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    with pytest.raises(BadSettings, match="between 0 and 1"):
        check_delta(delta)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_epsilon_that_no_budget_can_have_is_refused(epsilon: float) -> None:
    with pytest.raises(BadSettings, match="finite number above 0"):
        check_epsilon(epsilon)


@pytest.mark.parametrize(
    ("epsilon", "label"),
    [(0.0, None), (10.0, None), (10.01, NO_GUARANTEE), (math.inf, NO_GUARANTEE),
     (math.nan, NO_GUARANTEE)],
)  # fmt: skip
def test_above_ten_a_figure_means_nothing(epsilon: float, label: str | None) -> None:
    assert label_of(epsilon) == label
    sentence = PrivacyFigure("one segment", "r", epsilon, 1e-5, {"a": epsilon}).sentence()
    assert (NO_GUARANTEE in sentence) == (label is not None)


def test_a_group_costs_size_times_epsilon_at_the_delta_that_is_left() -> None:
    # One epsilon at every delta, however small: three units cost three times.
    assert group_figure(lambda delta: 0.5, 3, 1e-5).epsilon == 1.5
    # By hand, k = 2: epsilon 1 from delta / (2 e) on, which lies between two decades.
    found = group_figure(lambda delta: 1.0, 2, 1e-5)
    assert (found.size, found.epsilon, found.delta) == (2, 2.0, 1e-5)
    # Each smaller delta costs a little more: the first that fits is taken.
    rising = group_figure(lambda delta: 1.0 + 0.1 * (-5 - math.log10(delta)), 2, 1e-5)
    assert 2.0 < rising.epsilon < 2.3


def test_one_unit_is_a_group_of_itself() -> None:
    assert group_figure(lambda delta: -math.log10(delta), 1, 1e-4).epsilon == 4.0


@pytest.mark.parametrize("epsilon", [math.inf, math.nan, 1e3])
def test_a_group_that_nothing_bounds_is_infinite(epsilon: float) -> None:
    assert group_figure(lambda delta: epsilon, 4, 1e-5).epsilon == math.inf
