"""What an adapter does to held-out speech, and the refusal of one that harms."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.client.adapter_check import LARGEST_RATIO, Effect, effect_of, require_harmless
from chorister.client.adapter_file import keep_adapter, read_adapter
from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import Adapter
from chorister.shared.voice import adapters

SPEC = adapters.SharedAdapterSpec(1)


def an_adapter(norm, seed=1):
    values = np.random.default_rng(seed).normal(size=SPEC.size).astype(np.float32)
    return Adapter(values * np.float32(norm / np.linalg.norm(values)), SPEC.digest)


def test_no_adapter_does_no_harm_and_a_large_one_does(trainable_model, material):
    held_out = material(3)
    nothing = effect_of(an_adapter(0.0), trainable_model, held_out.segments, held_out.profile)
    assert nothing.given == nothing.without
    assert not nothing.harmful
    large = effect_of(an_adapter(90.0), trainable_model, held_out.segments, held_out.profile)
    assert large.without == nothing.without
    assert large.harmful
    with pytest.raises(BadWeights, match="held-out loss"):
        require_harmless(large)
    require_harmless(nothing)


def test_the_models_own_adapter_is_as_it_was(trainable_model, material):
    own = an_adapter(1.0, seed=2).values
    adapters.write_shared(trainable_model, own)
    held_out = material(2)
    effect_of(an_adapter(5.0), trainable_model, held_out.segments, held_out.profile)
    np.testing.assert_array_equal(adapters.read_shared(trainable_model), own)
    with pytest.raises(BadWeights):
        effect_of(
            Adapter(np.zeros(3, np.float32), SPEC.digest), trainable_model, held_out.segments,
            held_out.profile,
        )  # fmt: skip
    np.testing.assert_array_equal(adapters.read_shared(trainable_model), own)


def test_nothing_to_judge_by_is_an_error(trainable_model, material):
    with pytest.raises(BadAudio):
        effect_of(an_adapter(0.0), trainable_model, material(0).segments, material(1).profile)


@pytest.mark.parametrize(
    ("given", "harmful"),
    [(1.0, False), (LARGEST_RATIO, False), (LARGEST_RATIO + 0.01, True),
     (float("inf"), True), (float("nan"), True), (0.1, False)],
)  # fmt: skip
def test_much_worse_is_beyond_the_ratio_or_no_number(given, harmful):
    assert Effect(1.0, given).harmful is harmful


def test_the_newest_adapter_is_kept_alone_and_can_be_read(tmp_path):
    one, two = an_adapter(1.0), an_adapter(2.0)
    keep_adapter(tmp_path / "adapters", one)
    path = keep_adapter(tmp_path / "adapters", two)
    assert list((tmp_path / "adapters").iterdir()) == [path]
    np.testing.assert_array_equal(read_adapter(path).values, two.values)
    assert read_adapter(path).spec == SPEC.digest
    with pytest.raises(BadWeights):
        keep_adapter(tmp_path / "adapters", Adapter(np.full(3, np.nan, np.float32), SPEC.digest))
    assert list((tmp_path / "adapters").iterdir()) == [path]
