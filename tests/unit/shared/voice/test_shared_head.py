"""Frozen part and head in a row are the whole model, values and gradients alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chorister.shared.errors import BadWeights
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import own_voice_batch
from chorister.shared.voice.shared_head import SharedHead, frozen_part


@pytest.fixture
def batch(material):
    own = material(3)
    found, _ = own_voice_batch(own.segments.recordings, own.profile, own.segments.features)
    return found


def random_values(size, seed=1):
    return np.random.default_rng(seed).normal(0, 0.3, size).astype(np.float32)


@pytest.mark.parametrize("rank", [0, 1, 2, 8])
@pytest.mark.parametrize("personal", [False, True])
def test_the_two_parts_are_the_whole_forward(trainable_model, batch, rank, personal):
    model, spec = trainable_model, adapters.SharedAdapterSpec(rank=rank)
    adapters.attach_shared(model, spec)
    adapters.write_shared(model, random_values(spec.size))
    if personal:
        adapters.attach_personal(model, adapters.PersonalAdapterSpec(rank=4))
        for parameter in adapters.personal_parameters(model):
            torch.nn.init.constant_(parameter, 0.05)
    hiss = torch.randn((3, 20 * 160), generator=torch.Generator().manual_seed(0))
    frozen, head = frozen_part(model, batch), SharedHead(model)
    cut = head(frozen.envelopes, frozen.followed, frozen.f0_hz, hiss)
    with torch.no_grad():
        whole = model(batch, hiss)
        adapters.write_shared(model, np.zeros(spec.size, np.float32))
        assert (model(batch, hiss) - whole).abs().max() > 1e-4  # the adapter counts
    assert torch.allclose(cut, whole, rtol=1e-5, atol=1e-6)


def test_gradients_of_the_adapter_are_the_whole_models(trainable_model, batch):
    model = trainable_model
    weight = model.decoder.shared.shift.weight.requires_grad_(True)
    hiss = torch.randn((3, 20 * 160), generator=torch.Generator().manual_seed(0))
    (whole,) = torch.autograd.grad(model(batch, hiss).square().mean(), weight)
    frozen, head = frozen_part(model, batch), SharedHead(model)
    wav = head(frozen.envelopes, frozen.followed, frozen.f0_hz, hiss)
    (cut,) = torch.autograd.grad(wav.square().mean(), weight)
    assert whole.abs().max() > 0
    assert torch.allclose(cut, whole, rtol=1e-4, atol=1e-9)
    assert not frozen.envelopes.requires_grad


def test_the_head_trains_the_models_own_values(trainable_model):
    head = SharedHead(trainable_model)
    assert next(iter(head.parameters())) is trainable_model.decoder.shared.shift.weight
    assert len(list(head.parameters())) == 1


def test_what_is_frozen_of_an_example_depends_on_that_example_alone(
    trainable_model, batch, material
):
    whole = frozen_part(trainable_model, batch)
    own = material(3)
    alone = own.segments.select([1])
    one, _ = own_voice_batch(alone.recordings, own.profile, alone.features)
    single = frozen_part(trainable_model, one)
    assert torch.allclose(single.envelopes[0], whole.envelopes[1], rtol=1e-4, atol=1e-5)
    picked = whole.select(torch.tensor([2, 2, 0]))
    for name in ("envelopes", "followed", "f0_hz"):
        assert torch.equal(getattr(picked, name), getattr(whole, name)[[2, 2, 0]])
    assert len(whole.select(torch.tensor([], dtype=torch.long)).f0_hz) == 0


def test_a_model_without_a_shared_adapter_has_no_head(small_model):
    with pytest.raises(BadWeights, match="attached first"):
        SharedHead(small_model)
