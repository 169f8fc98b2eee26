"""Clip, quantise, add noise: the bound that noise is sized for holds for every input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from chorister.client.privatise import QuantisedDelta, add_noise, clip, quantise
from chorister.shared.errors import BadSettings, RoundAborted
from chorister.shared.privacy.discrete_gaussian import discrete_gaussian
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.quantise import (
    check_norm,
    mean_delta,
    round_within_norm,
    squared_norm,
)
from chorister.shared.types import AdapterDelta, Aggregate, ClippedDelta, NoisedDelta
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import Rehearsal, rehearsal_terms


def _delta(values: object) -> AdapterDelta:
    return AdapterDelta(np.asarray(values, dtype=np.float32))


@pytest.mark.parametrize("norm", [0.0, 1e-30, 0.5, 1.0, 3.0, 1e30])
def test_clipping_bounds_the_norm_and_keeps_the_direction(norm: float) -> None:
    direction = np.random.default_rng(0).normal(size=50)
    direction /= np.linalg.norm(direction)
    clipped = clip(_delta(direction * norm), 1.0)
    length = np.linalg.norm(clipped.values)
    assert length <= 1.0 + 1e-12
    assert length == pytest.approx(min(norm, 1.0), rel=1e-5)
    if norm > 0:
        assert clipped.values @ direction == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(BadSettings, match="finite"):
        clip(_delta([0.0, bad]), 1.0)


def test_a_delta_clipped_to_more_or_of_another_size_is_refused() -> None:
    terms = rehearsal_terms(6, 4)
    for clipped in (ClippedDelta(np.zeros(4), 1.5, True), ClippedDelta(np.zeros(3), 1.0, True)):
        with pytest.raises(BadSettings, match="clipped to"):
            quantise(clipped, terms, bytes(32), SimulatedRandomness(0))


@pytest.mark.parametrize("dimension", [1, 2, 1000])
@pytest.mark.parametrize("steps", [1.0, 8.0, 8192.0])
def test_the_norm_bound_holds_after_rounding(dimension: int, steps: float) -> None:
    bound = math.floor(
        min(
            steps**2 + dimension / 4 + steps + math.sqrt(dimension) / 2,
            (steps + math.sqrt(dimension)) ** 2,
        )
    )
    generator = np.random.default_rng(0)
    for seed in range(20):
        scaled = generator.normal(size=dimension)
        scaled *= steps / np.linalg.norm(scaled)
        rounded = round_within_norm(scaled, bound, SimulatedRandomness(seed))
        assert squared_norm(rounded) <= bound
        assert np.abs(rounded - scaled).max() < 1


def test_rounding_is_unbiased() -> None:
    scaled = np.array([0.25, -0.25, 3.0, 0.0, 7.9])
    mean = np.mean(
        [round_within_norm(scaled, 10**6, SimulatedRandomness(i)) for i in range(4000)], axis=0
    )
    assert np.abs(mean - scaled).max() < 5 * 0.5 / math.sqrt(4000)


def test_rounding_something_unclipped_is_refused() -> None:
    with pytest.raises(BadSettings, match="clipped"):
        round_within_norm(np.full(10, 100.0), 50, SimulatedRandomness(0))


def test_squared_norms_are_exact_where_floats_are_not() -> None:
    values = np.array([2**31 - 1] * 5 + [1])
    assert squared_norm(values) == 5 * (2**31 - 1) ** 2 + 1


def test_the_sums_variance_through_the_whole_path_matches_the_plan() -> None:
    d = 20_000
    terms = rehearsal_terms(6, d, noise_multiplier=1.0)
    zero = QuantisedDelta(np.zeros(d, dtype=np.int64), 32)

    def deviation(add: Callable[[Randomness], NoisedDelta]) -> float:
        rehearsal = Rehearsal(terms, 0)
        noised = {
            name: add(device.randomness.fork("noise")).values
            for name, device in rehearsal.devices.items()
        }
        aggregate = rehearsal.run(noised)
        check_norm(aggregate, terms)
        planned = math.sqrt(len(aggregate.survivors) * terms.client_variance)
        return float(aggregate.values.std() / planned)

    def halved(randomness: Randomness) -> NoisedDelta:
        return NoisedDelta(discrete_gaussian(terms.client_variance // 2, d, randomness), 32)

    # The deviation of d samples is right within 1 / sqrt(2 d) = 0.5 %.
    assert deviation(lambda r: add_noise(zero, terms, r)) == pytest.approx(1.0, abs=0.025)
    assert deviation(halved) != pytest.approx(1.0, abs=0.2)


def test_noise_of_min_honest_devices_is_what_the_terms_state() -> None:
    terms = rehearsal_terms(8, 10, noise_multiplier=1.5)
    total = math.sqrt(terms.min_honest * terms.client_variance)
    assert total / terms.sensitivity == pytest.approx(1.5, rel=1e-3)


def test_without_privacy_nothing_is_added() -> None:
    terms = rehearsal_terms(6, 4, noise_multiplier=0.0)
    quantised = QuantisedDelta(np.arange(4), 32)
    noised = add_noise(quantised, terms, SimulatedRandomness(0))
    assert np.array_equal(noised.values, np.arange(4))
    assert terms.client_variance == 0


def test_the_mean_comes_back_in_units_of_the_delta() -> None:
    terms = rehearsal_terms(6, 4, noise_multiplier=0.0)
    delta = np.array([0.5, -0.25, 0.125, 0.0])
    rehearsal = Rehearsal(terms, 0)
    values = {
        name: quantise(
            clip(_delta(delta), 1.0), terms, bytes(32), device.randomness.fork("q")
        ).values
        for name, device in rehearsal.devices.items()
    }
    mean = mean_delta(rehearsal.run(values), terms, bytes(32))
    assert mean == pytest.approx(delta, abs=2 / terms.scale)


def test_a_sum_longer_than_clips_and_noise_allow_is_refused() -> None:
    terms = rehearsal_terms(6, 100)
    survivors = tuple("abcdef")
    bound = 6 * terms.sensitivity
    check_norm(Aggregate(np.full(100, int(bound / 10)), survivors, 32), terms)
    with pytest.raises(RoundAborted, match="norm"):
        check_norm(Aggregate(np.full(100, int(bound * 2)), survivors, 32), terms)
    random = np.random.default_rng(0).integers(-(2**31), 2**31, 100)
    with pytest.raises(RoundAborted, match="norm"):
        check_norm(Aggregate(random, survivors, 32), terms)


def test_no_values_in_a_repr() -> None:
    assert "123" not in repr(QuantisedDelta(np.array([123]), 32))
