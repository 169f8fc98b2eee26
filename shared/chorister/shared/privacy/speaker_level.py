"""Speaker-level differential privacy of the sum, by the distributed discrete Gaussian mechanism.

The unit is everything that one speaker contributed in a round; two inputs are neighbours if one
speaker's rounded delta is replaced by zero. Who takes part is public. Source: Kairouz, Liu, Steinke
2021, theorem 1: n shares of variance parameter s, a sensitivity D in d dimensions, and

    tau = 10 sum over k < n of exp(-2 pi**2 s k / (k + 1))
    epsilon**2 = min(D**2 / (n s) + tau d / 2, (D / sqrt(n s) + tau sqrt(d))**2)

give (epsilon**2 / 2)-concentrated differential privacy. Noise of further honest devices is
post-processing, so n is `min_honest`. Corrupt devices know their own noise, so it never counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.accountants import epsilon_by_library, epsilon_of_rho
from chorister.shared.privacy.events import ONE_SPEAKER, Epsilon, PrivacyEvent
from chorister.shared.privacy.figures import PrivacyFigure, check_delta
from chorister.shared.secagg.terms import LEAST_VARIANCE, MAX_COHORT, MAX_DIMENSION
from chorister.shared.secagg.thresholds import SECURITY_BITS

UNIT = "one speaker"
RELATION = ONE_SPEAKER


def speaker_accountant(delta: float) -> Epsilon:
    """Return the function from booked events to epsilon at a delta, for a budget's limit."""
    return lambda events: speaker_figure(events, delta).epsilon


def speaker_figure(events: Sequence[PrivacyEvent], delta: float) -> PrivacyFigure:
    """Return the speaker-level figure of all rounds that one speaker was in.

    Args:
        events: of the mechanism here; any other makes the figure infinite.
        delta: in (0, 1); 2**-40 of it is set aside for each round's choice of neighbours.
    """
    check_delta(delta)
    known = all(e.protects("speaker") and e.sample_rate == 1.0 for e in events)
    squares = sum(e.steps / e.noise_multiplier**2 for e in events)
    steps = sum(e.steps for e in events)
    rest = delta - steps * 2.0**-SECURITY_BITS
    if not known or rest <= 0:
        figures = {"closed form": math.inf, "dp-accounting": math.inf}
    else:
        figures = dict(_figures(squares, steps, rest))
    return PrivacyFigure(UNIT, RELATION, max(figures.values()), delta, figures)


@lru_cache(maxsize=1024)
def _figures(squares: float, steps: int, delta: float) -> tuple[tuple[str, float], ...]:
    rho = (squares + steps * WORST_TAU_TERM) / 2
    return (
        ("closed form", epsilon_of_rho(rho, delta)),
        ("dp-accounting", epsilon_by_library(rho, delta)),
    )


def concentrated_rho(
    sensitivity: float, client_variance: float, clients: int, dimension: int
) -> float:
    """Return the rho of one round by the closed form of the theorem.

    Args:
        sensitivity: D, L2, in steps.
        client_variance: s, parameter of each share.
        clients: n, honest shares.
        dimension: d.
    """
    ratio = sensitivity / math.sqrt(clients * client_variance)
    tau = _tau(client_variance, clients)
    return min(ratio**2 + tau * dimension / 2, (ratio + tau * math.sqrt(dimension)) ** 2) / 2


def _tau(variance: float, clients: int) -> float:
    # k / (k + 1) is smallest at k = 1: every term is at most exp(-pi**2 variance).
    return sum(10 * math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, clients))


WORST_TAU_TERM = 10 * MAX_COHORT * math.exp(-(math.pi**2) * LEAST_VARIANCE) * MAX_DIMENSION / 2
"""tau d / 2 for the smallest variance, largest cohort and dimension that terms may state: 1e-57."""


def largest_delta(population: int) -> float:
    """Return the largest delta that a federation of so many speakers may state, N**-1.1."""
    return float(population**-1.1)


def check_population(delta: float, population: int) -> None:
    """Return if a speaker's figure may be stated at a delta in a federation of so many speakers.

    A mechanism that publishes everything of one speaker in N satisfies (0, 1 / N); a delta has to
    be well below that. Source: Kairouz et al. 2021 and McMahan et al. 2018 use N**-1.1.

    Args:
        delta: in (0, 1).
        population: N, speakers that are known to take part.

    Raises:
        BadSettings: it is larger, with the nearest that may be stated.
    """
    most = largest_delta(population)
    if delta > most:
        digits = 10.0 ** (math.floor(math.log10(most)) - 1)
        near = math.floor(most / digits) * digits
        raise BadSettings(
            f"A speaker's figure is stated at a delta of at most N^-1.1 = {most:.3g} for "
            f"{population} speakers.", f"delta_dp = {delta:g}",
            f"Nearest feasible: speaker_privacy.delta_dp = {near:.2g}.",
        )  # fmt: skip
