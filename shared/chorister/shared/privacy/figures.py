"""A privacy figure that says what it is a figure of, and whether it means anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from chorister.shared.errors import BadSettings

MEANINGFUL_EPSILON = 10.0
"""Beyond it, odds may change by a factor of 22 000 and more: no promise that helps anybody."""
NO_GUARANTEE = "no meaningful guarantee"


@dataclass(frozen=True, slots=True)
class PrivacyFigure:
    """One (epsilon, delta), with everything that it needs to mean something.

    Attributes:
        unit: what is protected: 'one segment' or 'one speaker'.
        relation: which two inputs count as neighbours.
        epsilon: the larger of the two accountants' figures; infinity where there was no noise.
        delta: of (epsilon, delta).
        accountants: name of each accountant to its epsilon.
    """

    unit: str
    relation: str
    epsilon: float
    delta: float
    accountants: dict[str, float]

    @property
    def label(self) -> str | None:
        """A warning that belongs beside the figure, None if there is none to give."""
        return label_of(self.epsilon)

    def sentence(self) -> str:
        """Return the figure as one line for a report."""
        each = ", ".join(f"{name} {value:.4g}" for name, value in self.accountants.items())
        warning = "" if self.label is None else f": {self.label}"
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:.2g} for {self.unit} "
            f"({self.relation}; {each}){warning}"
        )


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """What a figure for one unit says about several of them together.

    Attributes:
        size: how many units.
        epsilon: for all of them together; infinity where nothing bounds it.
        delta: of that epsilon.
    """

    size: int
    epsilon: float
    delta: float


def label_of(epsilon: float) -> str | None:
    """Return 'no meaningful guarantee' for an epsilon above 10 or without a value, else None."""
    return None if epsilon <= MEANINGFUL_EPSILON else NO_GUARANTEE


def check_delta(delta: float) -> float:
    """Return a delta that a figure can be stated at.

    Raises:
        BadSettings: it is not between 0 and 1, or not a number.
    """
    if not 0 < delta < 1:
        raise BadSettings(
            "A delta lies between 0 and 1, both excluded.", f"{delta:g}",
            "Choose one below 1 / (number of protected units), e.g. 1e-5.",
        )  # fmt: skip
    return delta


def check_epsilon(epsilon: float) -> float:
    """Return an epsilon that a budget can have.

    Raises:
        BadSettings: it is not above 0, or not finite.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise BadSettings(
            "An epsilon is a finite number above 0.", f"{epsilon:g}",
            "Choose one up to 10; beyond it a figure means nothing.",
        )  # fmt: skip
    return epsilon


def group_figure(epsilon_at: Callable[[float], float], size: int, delta: float) -> GroupFigure:
    """Return what protects `size` units together at the same delta.

    (epsilon, delta') for one unit gives (k epsilon, k exp((k - 1) epsilon) delta') for k of them,
    so the smaller deltas' larger epsilons are tried until the group's delta fits.

    Args:
        epsilon_at: epsilon of one unit at a delta.
        size: k, at least 1.
        delta: that the group's figure shall have.

    Source: Dwork and Roth 2014, theorem 2.2; Vadhan 2017, lemma 2.2.
    """
    for quarters in range(241):
        smaller = delta * 10.0 ** (-quarters / 4)
        epsilon = epsilon_at(smaller)
        exponent = math.log(size) + (size - 1) * epsilon + math.log(smaller)
        if exponent <= math.log(delta):
            return GroupFigure(size, size * epsilon, delta)
    return GroupFigure(size, math.inf, delta)
