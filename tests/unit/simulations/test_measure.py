"""Whether an adapter is better: the same noise for all versions, and a one-sided paired test."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.client.train import train_shared_adapter
from chorister.shared.errors import BadAudio
from chorister.shared.settings import TrainingTask
from chorister.shared.types import Adapter
from chorister.shared.voice import adapters
from chorister.simulations.measure import MAX_SEGMENTS, losses, paired_test
from chorister.simulations.randomness import SimulatedRandomness

SPEC = adapters.SharedAdapterSpec(rank=1)
ZERO = Adapter(np.zeros(SPEC.size, np.float32), SPEC.digest)


def test_no_segments_have_no_loss(trainable_model, material):
    own = material(0)
    with pytest.raises(BadAudio):
        losses(trainable_model, [ZERO], own.segments, own.profile)


def test_equal_versions_have_equal_losses_in_any_order(trainable_model, material):
    own = material(3)
    other = Adapter(np.full(SPEC.size, 0.3, np.float32), SPEC.digest)
    found = losses(trainable_model, [ZERO, other, ZERO], own.segments, own.profile)
    assert found[0] == found[2] != found[1]
    assert found == losses(trainable_model, [ZERO, other, ZERO], own.segments, own.profile)


def test_at_most_eight_segments_are_used(trainable_model, material):
    own = material(MAX_SEGMENTS + 2)
    first = own.segments.select(range(MAX_SEGMENTS))
    assert losses(trainable_model, [ZERO], own.segments, own.profile) == losses(
        trainable_model, [ZERO], first, own.profile
    )


def test_training_lowers_the_loss_and_the_model_can_still_be_trained(
    trainable_model, material, permits
):
    own = material(4)
    task = TrainingTask(local_steps=4, expected_batch_size=8, learning_rate=0.2)
    adapter = ZERO
    for _ in range(2):
        before = losses(trainable_model, [adapter], own.segments, own.profile)[0]
        delta = train_shared_adapter(
            trainable_model, SPEC, adapter, own, task, None, permits("training"), 1_800_000_000,
            SimulatedRandomness(1),
        )  # fmt: skip
        adapter = Adapter(adapter.values + delta.values, SPEC.digest)
        assert losses(trainable_model, [adapter], own.segments, own.profile)[0] < before


def test_the_paired_test_is_one_sided():
    before = [1.0 + 0.01 * i for i in range(10)]
    better = paired_test(before, [b - 0.1 - 0.001 * i for i, b in enumerate(before)])
    # All ten differences below 0: 2**-10.
    assert better.p_value == pytest.approx(2**-10)
    assert better.mean_difference == pytest.approx(-0.1045)
    worse = paired_test(before, [b + 0.1 + 0.001 * i for i, b in enumerate(before)])
    assert worse.p_value == pytest.approx(1.0)
    assert better.to_json()["n"] == 10


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [0.5]), ([1.0, 2.0], [1.0, 2.0])])
def test_too_few_pairs_or_no_difference_is_no_test(before, after):
    assert paired_test(before, after) is None
