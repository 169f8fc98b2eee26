"""Thresholds hold what the proofs need, and abort as often as they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chorister.shared.errors import BadSettings, RoundAborted
from chorister.shared.secagg.chances import (
    binomial_cdf,
    log_binomial_at_most,
    log_choose,
    log_hypergeometric_at_least,
)
from chorister.shared.secagg.planning import plan_cohort
from chorister.shared.secagg.thresholds import (
    SECURITY_BITS,
    _log_left_out,
    _log_small_part,
    derive,
)


@pytest.mark.parametrize("cohort", range(2, 41))
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.2, 0.32])
def test_a_complete_graph_withstands_the_assumed_devices(cohort: int, gamma: float) -> None:
    try:
        plan = plan_cohort(cohort, gamma, 0.2)
    except BadSettings:
        assert cohort < 8
        return
    t = plan.thresholds
    assert t.complete
    # Holders are k + 1 with oneself; two thresholds, or two quorums, share an honest device.
    assert 2 * t.share_threshold > t.neighbours + 1 + t.corrupt
    assert 2 * t.vote_quorum > t.roster + t.corrupt
    assert t.min_survivors - t.corrupt >= t.min_honest >= 2
    assert t.min_survivors >= t.share_threshold
    assert t.corrupt <= gamma * cohort
    assert 0 <= plan.abort_probability <= 1


def test_the_least_threshold_is_chosen() -> None:
    # One less, and a lying server could have both kinds of share.
    for cohort in range(4, 40):
        t = plan_cohort(cohort, 0.1, 0.2).thresholds
        assert 2 * (t.share_threshold - 1) <= t.neighbours + 1 + t.corrupt


@pytest.mark.parametrize(
    ("cohort", "gamma", "dropout"), [(200, 0.05, 0.05), (400, 0.05, 0.05), (1000, 0.05, 0.05)]
)
def test_a_sparse_graph_is_safe_by_the_bound_and_saves_masks(
    cohort: int, gamma: float, dropout: float
) -> None:
    plan = plan_cohort(cohort, gamma, dropout)
    t = plan.thresholds
    assert not t.complete
    assert 4 * t.neighbours <= cohort
    assert t.log2_failure <= -SECURITY_BITS
    assert t.share_threshold > t.neighbours / 2
    assert plan.abort_probability < 0.03
    assert t.min_survivors >= t.min_honest + t.corrupt + t.hidden


def test_neighbours_grow_like_the_logarithm_of_the_cohort() -> None:
    k = {n: plan_cohort(n, 0.05, 0.05).thresholds.neighbours for n in (250, 1000, 2000)}
    assert k[250] <= k[1000] <= k[2000] < 2 * k[250]


def test_the_bound_on_shares_covers_what_sampling_finds() -> None:
    # A weak setting, so that the event happens: 12 of 60 corrupt, 9 neighbours, threshold 6.
    n, c, k, t, trials = 60, 12, 9, 6, 4000
    generator = np.random.default_rng(0)
    bad = sum(
        2 * t <= k + 1 + (generator.choice(n - 1, k, replace=False) < c).sum()
        for _ in range(trials)
    )
    bound = math.exp(log_hypergeometric_at_least(n - 1, c, k, 2 * t - k - 1))
    assert bad > 50
    assert bad / trials == pytest.approx(bound, rel=0.25)


def _graphs(n: int, k: int, trials: int) -> np.ndarray:
    """Return random choices as bit masks, shape (trials, n)."""
    scores = np.random.default_rng(0).random((trials, n, n))
    scores[:, np.arange(n), np.arange(n)] = 2
    chosen = scores.argpartition(k, axis=2)[:, :, :k]
    return (1 << chosen.astype(np.int64)).sum(axis=2)


def test_the_bound_on_small_parts_covers_what_enumeration_finds() -> None:
    # Every part of at most half of ten devices, in every one of a thousand graphs.
    n, k, t = 10, 4, 4
    graphs = _graphs(n, k, 1000)
    split = np.zeros(len(graphs), dtype=bool)
    for size in range(1, n // 2 + 1):
        for part in itertools.combinations(range(n), size):
            mask = sum(1 << i for i in part)
            inside = ((graphs[:, list(part), None] & mask) >> np.arange(n) & 1).sum(axis=2)
            split |= (inside >= t - 1).all(axis=1)
    bound = math.exp(_log_small_part(n, 0, k, t))
    assert 10 < split.sum() <= bound * len(graphs) + 4 * math.sqrt(split.sum())


def test_the_bound_on_those_left_out_covers_what_enumeration_finds() -> None:
    n, k, dropped = 10, 4, 1
    graphs = _graphs(n, k, 1000)
    left_out = np.zeros(len(graphs), dtype=bool)
    for size in range(1, n // 2 + 1):
        for part in itertools.combinations(range(n), size):
            mask, rest = sum(1 << i for i in part), [i for i in range(n) if i not in part]
            choosers = (graphs[:, rest] & mask != 0).sum(axis=1)
            left_out |= choosers <= dropped
    bound = math.exp(_log_left_out(n, 0, k, 0, dropped, stop=math.inf))
    assert 10 < left_out.sum() <= bound * len(graphs) + 4 * math.sqrt(left_out.sum())


@pytest.mark.parametrize(("cohort", "dropout"), [(6, 0.34), (8, 0.1), (200, 0.05)])
def test_the_abort_probability_is_what_sampling_finds(cohort: int, dropout: float) -> None:
    plan = plan_cohort(cohort, 0.0, dropout)
    t, generator, aborted, trials = plan.thresholds, np.random.default_rng(1), 0, 1500
    for _ in range(trials):
        alive = generator.random(cohort) > dropout
        enough = alive.sum() >= max(t.min_survivors, t.vote_quorum, t.share_threshold)
        if enough and not t.complete:
            scores = generator.random((cohort, cohort))
            np.fill_diagonal(scores, 2)
            chosen = scores.argpartition(t.neighbours, axis=1)[:, : t.neighbours]
            enough = alive[chosen].sum(axis=1).min() >= t.share_threshold
        aborted += not enough
    assert aborted / trials <= plan.abort_probability + 0.02
    if t.complete:
        assert aborted / trials == pytest.approx(plan.abort_probability, abs=0.035)


def test_infeasible_settings_name_the_nearest_feasible_ones() -> None:
    with pytest.raises(BadSettings, match=r"a cohort of \d+") as caught:
        plan_cohort(8, 0.3, 0.5)
    advice = caught.value.advice
    cohort = int(advice.split("a cohort of ")[1].split()[0].rstrip("."))
    assert plan_cohort(cohort, 0.3, 0.5).min_honest >= 2
    assert plan_cohort(8, float(advice.split("gamma = ")[1].split()[0]), 0.5).min_honest >= 2
    dropout = float(advice.split("drop-outs = ")[1].rstrip("."))
    assert plan_cohort(8, 0.3, dropout).abort_probability <= 0.75
    with pytest.raises(BadSettings):
        plan_cohort(8, 0.3, dropout + 0.01)
    for cohort, gamma, bad in ((1, 0.0, 0.0), (10, 0.4, 0.0), (10, 0.0, 0.6), (10, -0.1, 0.0)):
        with pytest.raises(BadSettings):
            plan_cohort(cohort, gamma, bad)


def test_too_small_a_roster_aborts() -> None:
    plan = plan_cohort(10, 0.1, 0.2)
    need = plan.min_honest + 1
    assert derive(need, 10, 0.1, 0.2, plan.min_honest).min_survivors <= need
    with pytest.raises(RoundAborted):
        derive(need - 1, 10, 0.1, 0.2, plan.min_honest)


def test_the_corrupt_are_counted_from_the_cohort_not_from_who_came() -> None:
    assert derive(14, 20, 0.1, 0.2, 10).corrupt == derive(20, 20, 0.1, 0.2, 10).corrupt == 2


def test_tails_agree_with_enumeration() -> None:
    population, marked, drawn = 9, 4, 3
    hits = [sum(i < marked for i in c) for c in itertools.combinations(range(population), drawn)]
    for least in range(-1, 6):
        exact = sum(h >= least for h in hits) / len(hits)
        found = log_hypergeometric_at_least(population, marked, drawn, least)
        assert math.exp(found) == pytest.approx(exact, abs=1e-12)
    outcomes = [sum(c) for c in itertools.product((0, 1), repeat=5)]
    for most in range(-1, 6):
        exact = sum(o <= most for o in outcomes) / 32
        assert binomial_cdf(5, 0.5, most) == pytest.approx(exact, abs=1e-12)
    assert log_binomial_at_most(5, 0.0, 0) == 0.0
    assert log_binomial_at_most(5, 1.0, 4) == -math.inf
    assert math.exp(log_choose(10, 3)) == pytest.approx(120)
    assert log_choose(3, 4) == log_choose(3, -1) == -math.inf
