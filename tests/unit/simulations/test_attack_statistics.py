"""The attacks' statistics: published figures, closed forms, and what must be refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from chorister.shared.errors import BadSettings
from chorister.simulations.attacks.client_canaries import (
    epsilon_between_normals,
    epsilon_of_cosines,
)
from chorister.simulations.attacks.membership import explain, likelihood_ratios
from chorister.simulations.attacks.one_run import (
    Guesses,
    epsilon_lower_bound,
    guess,
    most_certifiable,
    p_value,
)
from chorister.simulations.attacks.rates import (
    area_under_curve,
    equal_error_rate,
    mean_with_interval,
    measure,
    share,
    true_positives_at,
)


@pytest.mark.parametrize(
    ("guesses", "delta", "published"),
    [
        (Guesses(1000, 100, 75), 1e-4, 0.673),  # Steinke et al. 2023, appendix D
        (Guesses(100_000, 1510, 1439), 1e-5, 2.675),  # section 7, figure 11
    ],
)
def test_the_bound_is_that_of_the_paper(guesses, delta, published):
    assert epsilon_lower_bound(guesses, delta) == pytest.approx(published, abs=1e-3)


def test_without_delta_the_p_value_is_a_binomial_tail():
    assert p_value(Guesses(100, 100, 75), math.log(3), 0.0) == pytest.approx(
        binom.sf(74, 100, 0.75)
    )
    assert p_value(Guesses(100, 100, 75), math.log(3), 0.0) == pytest.approx(0.553, abs=1e-3)


@pytest.mark.parametrize(("canaries", "most"), [(40, 2.6), (1000, 5.8)])
def test_so_many_canaries_certify_at_most_so_much(canaries, most):
    # All right: chance**m = 0.05 at chance = 1 / (1 + exp(-epsilon)).
    chance = 0.05 ** (1 / canaries)
    exact = math.log(chance / (1 - chance))
    assert most_certifiable(canaries) == pytest.approx(exact, abs=1e-6)
    assert most_certifiable(canaries) == pytest.approx(most, abs=0.05)
    assert most_certifiable(canaries, delta=1e-5) < exact


@given(
    st.integers(1, 300).flatmap(
        lambda m: st.integers(1, m).flatmap(
            lambda r: st.tuples(st.just(m), st.just(r), st.integers(0, r))
        )
    ),
    st.floats(0, 0.1),
    st.floats(0.01, 0.4),
)
def test_the_bound_is_where_the_p_value_crosses_the_level(counts, delta, level):
    guesses = Guesses(*counts)
    bound = epsilon_lower_bound(guesses, delta, 1 - level)
    assert 0 <= bound < 60
    if bound > 0:
        assert p_value(guesses, bound * 0.999, delta) <= level + 1e-9
    assert p_value(guesses, bound + 1e-3, delta) >= level - 1e-9
    assert p_value(guesses, 1.0, delta) >= p_value(guesses, 1.0, 0.0)


@pytest.mark.parametrize(
    ("guesses", "epsilon", "delta"),
    [
        (Guesses(10, 11, 5), 1.0, 0.0), (Guesses(10, 5, 6), 1.0, 0.0),
        (Guesses(10, 5, -1), 1.0, 0.0), (Guesses(10, 5, 5), -1.0, 0.0),
        (Guesses(10, 5, 5), math.nan, 0.0), (Guesses(10, 5, 5), 1.0, 1.5),
        (Guesses(10, 5, 5), 1.0, math.nan),
    ],
)  # fmt: skip
def test_counts_that_are_none_are_refused(guesses, epsilon, delta):
    with pytest.raises(BadSettings):
        p_value(guesses, epsilon, delta)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan, -1.0])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(BadSettings, match="confidence"):
        epsilon_lower_bound(Guesses(10, 5, 5), 0.0, confidence)


def test_guesses_are_the_ends_of_the_scores():
    coins = np.arange(100) >= 50
    assert guess(np.arange(100.0), coins) == Guesses(100, 20, 20)
    assert guess(-np.arange(100.0), coins) == Guesses(100, 20, 0)
    assert guess(np.arange(100.0), coins, 0.5) == Guesses(100, 100, 100)
    for scores in (np.full(100, np.nan), np.zeros(99)):
        with pytest.raises(BadSettings):
            guess(scores, coins)


def test_randomised_response_is_bounded_below_its_epsilon_nearly_always():
    rng = np.random.default_rng(3)
    epsilon, m = 2.0, 500
    above = 0
    for _ in range(200):
        right = int(rng.binomial(m, 1 / (1 + math.exp(-epsilon))))
        above += epsilon_lower_bound(Guesses(m, m, right), 0.0) > epsilon
    assert above <= 18  # 10 expected at 95 %; 18 or fewer with a chance of 99 %


@pytest.mark.parametrize(("deviation", "epsilon"), [(4.22, 1.0), (1.54, 3.0), (0.541, 10.0)])
def test_normals_give_the_analytic_gaussian(deviation, epsilon):
    # Noise that gives epsilon at delta 1e-6, as in table 1 of Andrew et al. 2023.
    found = epsilon_between_normals(0.0, deviation, 1.0, deviation, 1e-6)
    assert found == pytest.approx(epsilon, rel=0.005)


def test_equal_normals_tell_nothing():
    assert epsilon_between_normals(0.3, 1.0, 0.3, 1.0, 1e-6) == 0.0


# An estimate: 400 cosines know a deviation to 3.5 %, which moves a tail of 1e-6 a good deal.
@pytest.mark.parametrize(("deviation", "low", "high"), [(1.54, 2.4, 4.8), (0.541, 8.5, 11.5)])
def test_cosines_of_canaries_estimate_the_gaussian_mechanism(deviation, low, high):
    rng = np.random.default_rng(5)
    d, k = 20_000, 400
    found = []
    for _ in range(3):
        canaries = rng.standard_normal((k, d), dtype=np.float32)
        canaries /= np.linalg.norm(canaries, axis=1, keepdims=True)
        released = canaries.sum(axis=0) + deviation * rng.standard_normal(d)
        cosines = (canaries @ released / np.linalg.norm(released)).astype(np.float64)
        found.append(epsilon_of_cosines(cosines, d, 1e-6))
    assert low < np.mean(found) < high  # analytic: 3 and 10


def test_area_is_the_chance_of_the_right_order():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 60).astype(float), rng.integers(0, 2, 60).astype(bool)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[positive] for b in scores[~positive]
    ]  # fmt: skip
    assert area_under_curve(scores, positive) == pytest.approx(np.mean(pairs))
    assert area_under_curve(positive.astype(float), positive) == 1.0


def test_true_positives_leave_no_more_negatives_than_allowed():
    scores = np.concatenate([np.arange(100.0), np.arange(50.0, 150.0)])
    positive = np.arange(200) >= 100
    assert true_positives_at(0.01)(scores, positive) == 0.51  # above 98
    assert true_positives_at(0.0)(scores, positive) == 0.50  # above 99
    assert true_positives_at(0.0)(np.zeros(200), positive) == 0.0  # ties are not found


def test_equal_error_of_scores_without_information_is_a_half():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=20_000)
    assert equal_error_rate(scores, rng.integers(0, 2, 20_000) == 1) == pytest.approx(0.5, abs=0.02)


def test_an_interval_over_owners_is_wider_than_one_over_scores():
    rng = np.random.default_rng(2)
    owner = np.repeat(np.arange(8), 10)
    scores = rng.normal(size=8)[owner] + 0.1 * rng.normal(size=80)
    positive = np.arange(80) % 2 == 0
    scores = scores + positive * rng.normal(size=8)[owner]
    alone = np.arange(80)
    by_owner = measure(area_under_curve, scores, positive, owner, alone, 0)
    by_score = measure(area_under_curve, scores, positive, alone, alone, 0)
    assert by_owner.value == by_score.value
    assert by_owner.low <= by_owner.value <= by_owner.high
    assert by_owner.high - by_owner.low > by_score.high - by_score.low


@pytest.mark.parametrize("positive", [np.zeros(4, bool), np.ones(4, bool)])
def test_rates_need_two_kinds(positive):
    for statistic in (area_under_curve, equal_error_rate, true_positives_at(0.1)):
        with pytest.raises(BadSettings, match="two kinds"):
            statistic(np.zeros(4), positive)


def test_shares_have_clopper_pearson_intervals():
    # 95 % of 20 in 20: (0.025**(1/20), 1); of 0: (0, 1 - 0.025**(1/20)).
    assert share(20, 20).low == pytest.approx(0.025 ** (1 / 20))
    assert share(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert (share(20, 20).high, share(0, 20).low) == (1.0, 0.0)
    assert share(5, 10).low == pytest.approx(0.187, abs=1e-3)
    for hits, trials in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(BadSettings):
            share(hits, trials)


def test_a_mean_has_an_interval_around_it():
    found = mean_with_interval(np.arange(50.0), 0)
    assert found.low < found.value == 24.5 < found.high


def test_likelihood_ratios_leave_the_judged_one_out():
    rng = np.random.default_rng(4)
    inside = rng.integers(0, 2, (40, 6)).astype(bool)
    values = rng.normal(size=(40, 6)) + 3.0 * inside
    ratios, judged = likelihood_ratios(values, inside, np.ones_like(inside))
    assert judged.all()
    assert area_under_curve(ratios[judged], inside[judged]) > 0.95
    ratios, judged = likelihood_ratios(rng.normal(size=(40, 6)), inside, np.ones_like(inside))
    assert 0.3 < area_under_curve(ratios[judged], inside[judged]) < 0.7
    _, judged = likelihood_ratios(values[:3], inside[:3], np.ones_like(inside[:3]))
    assert not judged.any()  # too few others to judge by


def test_where_nothing_is_to_be_found_the_area_leans_by_a_hundredth():
    """As many federations as a quick run has, half of eight voices in each; docs/privacy.md."""
    rng = np.random.default_rng(5)
    areas = []
    for _ in range(150):
        chosen = np.zeros((12, 8), bool)
        for members in chosen:
            members[rng.permutation(8)[:4]] = True
        values = rng.normal(size=chosen.shape)
        ratios, judged = likelihood_ratios(values, chosen, np.ones_like(chosen))
        areas.append(area_under_curve(ratios[judged], chosen[judged]))
    print(np.mean(areas), np.quantile(areas, [0.025, 0.975]))
    assert 0.47 < np.mean(areas) < 0.5
    low, high = np.quantile(areas, [0.025, 0.975])
    assert 0.28 < low < 0.36
    assert 0.60 < high < 0.68


def test_recordings_that_pull_alike_are_told_apart_by_solving_for_all():
    rng = np.random.default_rng(6)
    shared = rng.normal(size=50)
    directions = shared + 0.3 * rng.normal(size=(8, 50))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    coins = rng.integers(0, 2, (30, 8)).astype(float)
    found = explain(coins @ directions, directions)
    assert np.corrcoef(found.ravel(), coins.ravel())[0, 1] > 0.9
