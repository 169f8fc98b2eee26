"""Random draws: moments, independence of forks, and a generator that is no secret."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from chorister.shared.randomness import SystemRandomness, expand
from chorister.simulations.randomness import SimulatedRandomness

N = 40_000


def standard_errors(values):
    """How many standard errors mean, variance, skewness and kurtosis are off N(0, 1)'s."""
    n = len(values)
    return [
        values.mean() * np.sqrt(n),
        (values.var() - 1) * np.sqrt(n / 2),
        stats.skew(values) * np.sqrt(n / 6),
        stats.kurtosis(values) * np.sqrt(n / 24),
    ]


@pytest.mark.parametrize("n", [N, N + 1])
def test_normal_has_the_moments_and_the_tails_of_a_normal(n):
    values = SimulatedRandomness(2).normal(n)
    assert values.shape == (n,)
    assert np.isfinite(values).all()
    assert np.abs(standard_errors(values)).max() < 5
    assert stats.kstest(values, "norm").pvalue > 1e-4
    # Both halves of a pair, which share a radius, are independent of each other.
    half = (n + 1) // 2
    assert abs(np.corrcoef(values[: n - half], values[half:])[0, 1]) < 5 / np.sqrt(half)
    assert 3.5 < np.abs(values).max() < 6.5


def test_a_wrong_scale_would_be_noticed():
    assert np.abs(standard_errors(1.05 * SimulatedRandomness(2).normal(N))).max() > 5


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_small_draws_have_the_size_that_was_asked_for(n):
    for randomness in (SimulatedRandomness(1), SystemRandomness()):
        assert randomness.normal(n).shape == (n,)
        assert randomness.uint64(n).shape == (n,)
        assert len(randomness.bytes(n)) == n


def test_uint64_is_uniform_in_every_bit():
    draws = SimulatedRandomness(5).uint64(N)
    assert draws.dtype == np.uint64
    for bit in range(64):
        ones = int(((draws >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(ones - N / 2) < 5 * np.sqrt(N) / 2


def test_forks_with_other_labels_are_independent():
    root = SimulatedRandomness(7)
    labels = ["a", "b", "ab", "", "round 1", "round 11", "draw"]
    draws = [root.fork(label).uint64(1000) for label in labels]
    draws += [root.fork("a").fork("b").uint64(1000), root.fork("b").fork("a").uint64(1000)]
    draws += [SimulatedRandomness(8).fork("a").uint64(1000), root.uint64(1000)]
    everything = np.concatenate(draws)
    assert len(np.unique(everything)) == len(everything)
    bits = [np.unpackbits(d.view(np.uint8)) for d in draws]
    for i, one in enumerate(bits):
        for two in bits[:i]:
            # 64 000 bits: agreement 1/2, standard deviation 0.002.
            assert abs((one == two).mean() - 0.5) < 0.012


def test_a_fork_does_not_depend_on_what_was_drawn_before():
    one, two = SimulatedRandomness(7), SimulatedRandomness(7)
    two.bytes(100)
    assert one.fork("x").bytes(16) == two.fork("x").bytes(16)


def test_a_path_repeats_for_its_seed_and_never_within_itself():
    one, two = SimulatedRandomness(7, "device", "a"), SimulatedRandomness(7, "device", "a")
    drawn = [one.bytes(16) for _ in range(50)]
    assert drawn == [two.bytes(16) for _ in range(50)]
    assert len(set(drawn)) == 50
    assert SimulatedRandomness(-1).bytes(16) != SimulatedRandomness(1).bytes(16)
    assert SimulatedRandomness(7, "de", "vicea").bytes(16) != drawn[0]


def test_a_simulation_says_that_it_is_one_and_shows_no_key():
    simulated = SimulatedRandomness(7)
    assert not simulated.private
    assert "not private" in simulated.statement
    assert repr(simulated) == "SimulatedRandomness()"


def test_the_system_repeats_nothing_even_under_one_label():
    system = SystemRandomness()
    assert system.private
    assert len({system.fork("x").bytes(16) for _ in range(100)}) == 100
    assert len(np.unique(system.uint64(1000))) == 1000


def test_expand_is_aes_256_in_counter_mode():
    # NIST SP 800-38A has no vector with a zero counter: AES-256 of a zero block under a zero key.
    assert expand(bytes(32), 16).hex() == "dc95c078a2408989ad48a21492842087"
    assert expand(bytes(32), 40)[:16] == expand(bytes(32), 16)
    assert expand(bytes(32), 0) == b""
