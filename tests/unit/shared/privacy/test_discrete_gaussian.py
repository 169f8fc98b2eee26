"""The noise is the distribution that the accountant assumes: shape, variance, tails, no other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.discrete_gaussian import (
    MAX_VARIANCE,
    _below,
    _bernoulli_exp,
    discrete_gaussian,
)
from chorister.shared.randomness import SystemRandomness
from chorister.simulations.randomness import SimulatedRandomness


def _masses(variance: int, reach: int) -> np.ndarray:
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x.astype(np.float64) ** 2) / (2 * variance))
    return weights / weights.sum()


@pytest.mark.parametrize("variance", [1, 2, 3, 16, 50])
def test_samples_have_the_masses_of_a_discrete_gaussian(variance: int) -> None:
    n, reach = 200_000, int(4 * math.sqrt(variance)) + 1
    samples = discrete_gaussian(variance, n, SimulatedRandomness(variance))
    expected = _masses(variance, 40 * variance)
    middle = len(expected) // 2
    counts = np.array([(samples == x).sum() for x in range(-reach, reach + 1)])
    masses = expected[middle - reach : middle + reach + 1]
    frequent = masses * n > 20
    chi_squared = ((counts - masses * n) ** 2 / (masses * n))[frequent].sum()
    # One in a million; the seed is fixed, so the test is too.
    assert chi_squared < stats.chi2.ppf(1 - 1e-6, frequent.sum())


def test_a_large_variance_is_met_and_half_of_it_is_caught() -> None:
    n, variance = 200_000, 50_000_000
    samples = discrete_gaussian(variance, n, SimulatedRandomness(1))
    # The variance of n samples deviates by a factor sqrt(2 / n) = 0.0032.
    assert samples.var() == pytest.approx(variance, rel=0.02)
    assert abs(samples.mean()) < 5 * math.sqrt(variance / n)
    assert stats.kstest(samples / math.sqrt(variance), "norm").pvalue > 1e-6
    halved = discrete_gaussian(variance // 2, n, SimulatedRandomness(1))
    assert halved.var() != pytest.approx(variance, rel=0.02)
    assert stats.kstest(halved / math.sqrt(variance), "norm").pvalue < 1e-6


@pytest.mark.parametrize("variance", [1, 7, MAX_VARIANCE])
def test_the_sign_is_fair_and_zero_counts_once(variance: int) -> None:
    samples = discrete_gaussian(variance, 100_000, SimulatedRandomness(2))
    positive, negative = (samples > 0).sum(), (samples < 0).sum()
    assert abs(positive - negative) < 5 * math.sqrt(positive + negative)


def test_samples_are_independent_of_their_place() -> None:
    samples = discrete_gaussian(1000, 100_000, SimulatedRandomness(3)).astype(np.float64)
    for lag in (1, 2, 7, 1000):
        r = np.corrcoef(samples[:-lag], samples[lag:])[0, 1]
        assert abs(r) < 5 / math.sqrt(len(samples))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_any_number_of_samples(n: int) -> None:
    assert len(discrete_gaussian(16, n, SystemRandomness())) == n


@pytest.mark.parametrize("variance", [0, -1, MAX_VARIANCE + 1])
def test_a_variance_out_of_range_is_refused(variance: int) -> None:
    with pytest.raises(BadSettings):
        discrete_gaussian(variance, 10, SystemRandomness())


@pytest.mark.parametrize(
    ("numerator", "denominator"), [(0, 5), (1, 3), (5, 5), (7, 5), (25, 5), (3, 2**53)]
)
def test_exponential_coins(numerator: int, denominator: int) -> None:
    n = 100_000
    wins = _bernoulli_exp(
        np.full(n, numerator, dtype=np.uint64), denominator, SimulatedRandomness(numerator)
    )
    chance = math.exp(-numerator / denominator)
    assert abs(wins.mean() - chance) <= 5 * math.sqrt(chance * (1 - chance) / n) + 1e-12


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 2**53, 2**63 + 1])
def test_uniform_integers_have_no_bias(bound: int) -> None:
    n = 60_000
    values = _below(bound, n, SimulatedRandomness(4)).astype(np.float64)
    assert values.max() < bound
    deviation = bound / math.sqrt(12 * n)
    assert abs(values.mean() - (bound - 1) / 2) < 5 * deviation + 1e-9


def test_rejection_draws_again() -> None:
    # Words at the top would favour small remainders, so they are drawn again.
    class Top(SimulatedRandomness.__mro__[1]):  # type: ignore[misc]
        private, statement = False, "top"
        calls = 0

        def bytes(self, n: int) -> bytes:
            raise AssertionError

        def fork(self, label: str) -> Top:
            return self

        def uint64(self, n: int) -> np.ndarray:
            self.calls += 1
            return np.full(n, 2**64 - 1 if self.calls == 1 else 5, dtype=np.uint64)

    source = Top()
    assert list(_below(3, 4, source)) == [2, 2, 2, 2]
    assert source.calls == 2
