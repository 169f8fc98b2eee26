"""From settings to terms: noise where privacy is on, none and a wide clip where it is off."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.server.terms import PLAIN_BOUND, plan_round, total_noise_multiplier
from chorister.shared.errors import BadSettings
from chorister.shared.settings import Aggregation, Federation, SpeakerPrivacy
from chorister.shared.types import Adapter

ADAPTER = Adapter(np.zeros(320, np.float32), "s" * 64)


def plan(cohort=20, **settings):
    return plan_round(Federation(**settings), "run", 3, cohort, ADAPTER, "a" * 64, True)


def test_terms_are_what_the_operator_decided():
    terms = plan(
        name="choir",
        speaker_privacy=SpeakerPrivacy(clip_norm=0.3, noise_multiplier=2.0),
        aggregation=Aggregation(corrupt_fraction=0.1, dropout_fraction=0.2, modulus_bits=28),
    )
    assert terms.federation == "choir"
    assert terms.round_id == "run/3"
    assert (terms.clip_norm, terms.noise_multiplier) == (0.3, 2.0)
    assert (terms.gamma, terms.dropout, terms.modulus_bits) == (0.1, 0.2, 28)
    assert (terms.dimension, terms.adapter, terms.simulated) == (320, "a" * 64, True)
    assert terms.private


def test_without_privacy_there_is_no_noise_and_a_bound_to_count_within():
    terms = plan(private=False)
    assert not terms.private
    assert terms.client_variance == 0
    assert terms.clip_norm == PLAIN_BOUND


def test_more_survivors_than_planned_hold_more_noise_than_promised():
    terms = plan()
    least = total_noise_multiplier(terms, terms.min_honest)
    assert least >= terms.noise_multiplier * (1 - 1e-9)
    assert total_noise_multiplier(terms, 4 * terms.min_honest) == pytest.approx(2 * least)


def test_an_infeasible_cohort_is_refused_with_what_would_do():
    with pytest.raises(BadSettings, match=r"Feasible and near: .*cohort of"):
        plan(5, aggregation=Aggregation(corrupt_fraction=0.2, dropout_fraction=0.5))


def test_a_delta_that_the_population_does_not_allow_is_refused():
    with pytest.raises(BadSettings, match=r"delta_dp = 0.0009\d?"):
        plan(cohort=560)
    adapter = (20, ADAPTER, "a" * 64, True)
    # The cohort is small, but it is drawn from many.
    with pytest.raises(BadSettings, match=r"Nearest feasible: .*0.0005"):
        plan_round(Federation(), "run", 3, *adapter, population=1000)
    assert plan_round(Federation(private=False), "run", 3, *adapter, population=1000)
    assert plan_round(Federation(), "run", 3, *adapter, population=500)
