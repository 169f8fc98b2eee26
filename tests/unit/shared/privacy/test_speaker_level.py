"""The speaker-level bound against divergences computed from the distributions themselves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.accountants import epsilon_by_library, epsilon_of_rho
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.speaker_level import (
    WORST_TAU_TERM,
    check_population,
    concentrated_rho,
    largest_delta,
    speaker_accountant,
    speaker_figure,
)


def _event(noise_multiplier: float, steps: int = 1) -> PrivacyEvent:
    return PrivacyEvent(SPEAKER_MECHANISM, noise_multiplier, 1.0, steps)


def _sum_of(clients: int, variance: float, reach: int) -> np.ndarray:
    """Return the masses of a sum of discrete Gaussians on [-reach, reach], by convolution."""
    x = np.arange(-reach, reach + 1)
    one = np.exp(-(x.astype(np.float64) ** 2) / (2 * variance))
    one /= one.sum()
    total = one
    for _ in range(clients - 1):
        total = np.convolve(total, one)
        middle = len(total) // 2
        total = total[middle - reach : middle + reach + 1]
    return total


def _renyi(p: np.ndarray, q: np.ndarray, order: float) -> float:
    keep = (p > 1e-290) & (q > 1e-290)
    logs = order * np.log(p[keep]) + (1 - order) * np.log(q[keep])
    return float(np.logaddexp.reduce(logs)) / (order - 1)


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("variance", [1.0, 2.0, 9.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_bound_covers_the_divergence_in_one_dimension(
    clients: int, variance: float, shift: int
) -> None:
    reach = int(30 * math.sqrt(clients * variance)) + shift
    p = _sum_of(clients, variance, reach)
    q = np.roll(p, shift)
    p, q = p[shift:], q[shift:]
    rho = concentrated_rho(shift, variance, clients, 1)
    for order in (1.5, 2.0, 4.0, 8.0):
        divergence = _renyi(p, q, order)
        assert divergence <= order * rho * (1 + 1e-9)
        # And not by far: a bound that covers everything says nothing.
        assert order * rho < 1.2 * divergence or variance < 9


@pytest.mark.parametrize("shift", [(1, 1), (2, 1), (0, 3)])
def test_the_bound_covers_the_divergence_in_two_dimensions(shift: tuple[int, int]) -> None:
    clients, variance, reach = 3, 4.0, 60
    one = _sum_of(clients, variance, reach)
    p = np.outer(one, one)
    q = np.roll(p, shift, axis=(0, 1))
    inner = slice(max(shift), -max(shift))
    rho = concentrated_rho(math.hypot(*shift), variance, clients, 2)
    for order in (1.5, 3.0):
        divergence = _renyi(p[inner, inner].ravel(), q[inner, inner].ravel(), order)
        assert divergence <= order * rho * (1 + 1e-9)


def test_the_closed_form_agrees_with_the_theorem_summed_term_by_term() -> None:
    for variance, n, d, sensitivity in itertools.product((0.5, 1.0, 4.0), (2, 10), (1, 50), (1, 7)):
        tau = sum(10 * math.e ** (-2 * math.pi**2 * variance * (k / (k + 1))) for k in range(1, n))
        base = sensitivity**2 / (n * variance)
        epsilon = min(
            math.sqrt(base + 0.5 * tau * d), sensitivity / math.sqrt(n * variance) + tau * d**0.5
        )
        found = concentrated_rho(sensitivity, variance, n, d)
        assert found == pytest.approx(epsilon**2 / 2, rel=1e-12)


def test_for_the_variances_that_terms_allow_the_sum_is_as_good_as_gaussian() -> None:
    assert 0 < WORST_TAU_TERM < 1e-50
    found = concentrated_rho(100.0, 16.0, 4096, 2**23)
    assert found == pytest.approx(100.0**2 / (2 * 4096 * 16.0), rel=1e-12)


def test_figures_of_the_literature() -> None:
    # Bun, Steinke 2016, proposition 1.3: at most rho + 2 sqrt(rho ln(1 / delta)) = 5.298.
    assert epsilon_of_rho(0.5, 1e-5) < 0.5 + 2 * math.sqrt(0.5 * math.log(1e5))
    # The Gaussian mechanism with sigma = 1 itself has epsilon 4.377 there (Balle, Wang 2018).
    assert 4.377 < epsilon_of_rho(0.5, 1e-5) < 4.8


@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.1, 0.5, 2.0, 50.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_two_accountants_agree(rho: float, delta: float) -> None:
    own, library = epsilon_of_rho(rho, delta), epsilon_by_library(rho, delta)
    assert own <= library + 1e-6
    assert library <= own * 1.02 + 2e-3


def test_no_noise_and_unknown_mechanisms_are_infinite() -> None:
    assert speaker_figure([PrivacyEvent("laplace", 1.0, 1.0, 1)], 1e-5).epsilon == math.inf
    sampled = PrivacyEvent(SPEAKER_MECHANISM, 1.0, 0.5, 1)
    assert speaker_figure([sampled], 1e-5).epsilon == math.inf
    assert speaker_figure([_event(1.0)], 2.0**-41).epsilon == math.inf
    assert epsilon_of_rho(math.inf, 1e-5) == math.inf


def test_rounds_compose_and_noise_helps() -> None:
    epsilon = speaker_accountant(1e-5)
    assert epsilon([]) == 0
    one, three = epsilon([_event(1.0)]), epsilon([_event(1.0)] * 3)
    assert one < three < 3 * one
    assert three == epsilon([_event(1.0, 3)])
    assert epsilon([_event(2.0)]) < one
    # Four rounds of noise 2 are one of noise 1, but for the delta of each round's neighbours.
    assert epsilon([_event(2.0, 4)]) == pytest.approx(one, rel=1e-6)


def test_a_figure_says_what_it_is_a_figure_of() -> None:
    sentence = speaker_figure([_event(1.0)], 1e-5).sentence()
    for part in ("one speaker", "replaced by zero", "1e-05", "closed form", "dp-accounting"):
        assert part in sentence
    assert largest_delta(100) == pytest.approx(100**-1.1)


@pytest.mark.parametrize(
    ("delta", "population"), [(1e-3, 534), (1e-3, 10_000), (0.09, 10), (1e-5, 10**6)]
)
def test_a_delta_above_the_populations_is_refused_with_the_nearest(
    delta: float, population: int
) -> None:
    with pytest.raises(BadSettings, match=r"N\^-1\.1") as caught:
        check_population(delta, population)
    near = float(caught.value.advice.rpartition("= ")[2].rstrip("."))
    assert 0.9 * largest_delta(population) < near <= largest_delta(population)
    check_population(near, population)


@pytest.mark.parametrize(
    ("delta", "population"), [(1e-3, 8), (1e-3, 533), (1e-5, 8), (1e-5, 35_000)]
)
def test_a_delta_that_the_population_allows_passes(delta: float, population: int) -> None:
    check_population(delta, population)
