"""What run.json says of rounds: counts by stage, ratios, and when a cohort is too small."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from chorister.server.rounds import RoundRecord
from chorister.shared.records import CONFIRM, CONTRIBUTE, SHARE
from chorister.shared.types import Adapter
from chorister.simulations.outcome import (
    WANTED_RATIO,
    Measured,
    cohort_advice,
    evaluation_of,
    noise_to_signal,
    rounds_json,
)

ROUND = RoundRecord(
    round=1, status="finished", reason=None, cohort=10, answered={SHARE: 10, CONTRIBUTE: 8},
    drop_outs={SHARE: 0, CONTRIBUTE: 2}, refusals={}, survivors=8, adapter_sha256="a" * 64,
    min_honest=6, noise_multiplier=1.5, epsilon_speaker=3.0, bytes_up=1000, bytes_down=500,
    seconds=2.0,
)  # fmt: skip
ABORTED = replace(ROUND, round=2, status="aborted", survivors=0, noise_multiplier=None)
MEASURED = Measured(
    tuple(Adapter(np.zeros(320, np.float32), "s" * 64) for _ in range(3)),
    {"anna": [3.0, 2.0, 1.0], "berta": [5.0, 4.0, 4.5]},
    {},
)


def test_noise_over_signal_by_hand():
    assert noise_to_signal(ROUND, 320) == pytest.approx(1.5 * math.sqrt(320) / 8)
    assert noise_to_signal(ABORTED, 320) is None
    assert noise_to_signal(replace(ROUND, survivors=0), 320) is None
    assert noise_to_signal(replace(ROUND, noise_multiplier=None), 320) is None


def test_the_advised_cohort_would_do():
    advice = cohort_advice([ROUND], 320)
    assert advice["noise_to_signal"] == noise_to_signal(ROUND, 320)
    grown = advice["cohort_for_target"] / ROUND.cohort
    # With a cohort that much larger, survivors grow alike and the promised noise stays.
    survivors = ROUND.survivors * grown
    assert 1.5 * math.sqrt(320) / survivors <= WANTED_RATIO
    assert 1.5 * math.sqrt(320) / (survivors * 0.98) > WANTED_RATIO


def test_advice_is_given_only_where_the_noise_exceeds_the_learning():
    loud = replace(ROUND, survivors=2)
    quiet = replace(ROUND, survivors=1000)
    assert cohort_advice([], 320) is None
    assert cohort_advice([ABORTED], 320) is None
    assert cohort_advice([loud, quiet], 320) is None
    assert cohort_advice([quiet, loud, ABORTED], 320) is not None


def test_rounds_are_matched_with_the_versions_that_they_made():
    last = replace(ROUND, round=3)
    one, two, three = rounds_json([ROUND, ABORTED, last], MEASURED)
    assert [r["held_out_loss"]["speakers"] for r in (one, two, three)] == [3.0, 3.0, 2.75]
    assert one["held_out_loss"]["clients"] is None
    assert two["adapter_sha256"] is None
    assert (one["advertised"], one["shared"], one["masked"], one["confirmed"]) == (0, 10, 8, 0)
    assert one["drop_outs"] == {"masked": 2}
    assert (one["bytes_up"], one["bytes_down"]) == (100.0, 50.0)
    assert CONFIRM not in one


def test_a_round_that_asked_nobody_divides_by_nothing():
    (row,) = rounds_json([replace(ABORTED, round=1, cohort=0, bytes_up=0)], MEASURED)
    assert row["bytes_up"] == 0


def test_an_evaluation_compares_the_first_with_the_last_version():
    found = MEASURED.evaluation()
    assert found["speakers"] == [
        {"speaker": "anna", "loss_before": 3.0, "loss_after": 1.0},
        {"speaker": "berta", "loss_before": 5.0, "loss_after": 4.5},
    ]
    assert found["paired_test"]["mean_difference"] == pytest.approx(-1.25)
    assert found["paired_test_clients"] is None
    assert evaluation_of({}, {})["paired_test"] is None
