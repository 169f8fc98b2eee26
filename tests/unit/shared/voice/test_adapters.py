"""The adapters: identity at zero, exact round trips, per-example gradients as DP-SGD needs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.voice.adapter_spec import SharedPlacement, shared_layouts
from chorister.shared.voice.adapters import (
    PersonalAdapterSpec,
    PersonalPlacement,
    SharedAdapterSpec,
    attach_personal,
    attach_shared,
    describe_personal,
    describe_shared,
    detach_personal,
    detach_shared,
    personal_parameters,
    read_personal,
    read_shared,
    shared_parameters,
    write_personal,
    write_shared,
)
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import ModelSettings, VoiceBatch, VoiceModel

SMALL = ModelSettings(
    content=8, encoder_width=16, encoder_blocks=1, decoder_width=24, decoder_blocks=2
)
FRAMES = 16


def small_model() -> VoiceModel:
    torch.manual_seed(3)
    model = VoiceModel(SMALL).requires_grad_(False)
    model.decoder.directions.normal_()
    return model


def batch_of(size: int) -> VoiceBatch:
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    f0_hz = 150.0 + 20.0 * noise(size, FRAMES)
    f0_hz[:, 10:] = 0.0
    return VoiceBatch(
        log_mel=noise(size, FRAMES, 80) - 4.0,
        f0_hz=f0_hz,
        source_mel_mean=noise(size, 80),
        source_mel_std=1.0 + noise(size, 80).abs(),
        target_vector=noise(size, 256) / 16.0,
        target_mel_mean=noise(size, 80),
        target_mel_std=1.0 + noise(size, 80).abs(),
        sounds_content=noise(size, 20, SMALL.content),
        sounds_log_mel=noise(size, 20, 80) - 4.0,
    )


def hiss_of(size: int) -> torch.Tensor:
    return torch.randn((size, FRAMES * 160), generator=torch.Generator().manual_seed(7))


def one_of(batch: VoiceBatch, index: int) -> VoiceBatch:
    return VoiceBatch(*(getattr(batch, name)[index : index + 1] for name in batch.__slots__))


@pytest.mark.parametrize("rank", [0, 2, 8])
def test_a_new_shared_adapter_changes_nothing(rank: int) -> None:
    model, batch, hiss = small_model(), batch_of(2), hiss_of(2)
    before = model(batch, hiss)
    spec = SharedAdapterSpec(rank)
    attach_shared(model, spec)
    assert torch.equal(model(batch, hiss), before)
    assert read_shared(model).shape == (spec.size,)
    assert not read_shared(model).any()


def test_a_new_personal_adapter_changes_nothing() -> None:
    model, batch, hiss = small_model(), batch_of(2), hiss_of(2)
    before = model(batch, hiss)
    attach_personal(model, PersonalAdapterSpec(rank=4))
    assert torch.equal(model(batch, hiss), before)


def test_shared_values_survive_a_round_trip_and_change_the_output() -> None:
    model, batch, hiss = small_model(), batch_of(2), hiss_of(2)
    spec = SharedAdapterSpec()
    before = model(batch, hiss)
    attach_shared(model, spec)
    values = np.random.default_rng(1).normal(size=spec.size).astype(np.float32)
    write_shared(model, values)
    assert np.array_equal(read_shared(model), values)
    assert not torch.allclose(model(batch, hiss), before)
    detach_shared(model)
    assert torch.equal(model(batch, hiss), before)


def test_the_constant_part_of_the_shared_adapter_is_a_gain_in_nepers() -> None:
    model, batch, hiss = small_model(), batch_of(1), hiss_of(1)
    before = model(batch, hiss)
    spec = SharedAdapterSpec()
    attach_shared(model, spec)
    values = np.zeros(spec.size, np.float32)
    values[:160] = np.log(2.0)
    write_shared(model, values)
    assert torch.allclose(model(batch, hiss), 2.0 * before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("values", [np.zeros(3), np.full(480, np.nan)])
def test_shared_values_that_do_not_fit_are_refused(values: np.ndarray) -> None:
    model = small_model()
    attach_shared(model, SharedAdapterSpec())
    with pytest.raises(BadWeights):
        write_shared(model, values.astype(np.float32))
    assert not read_shared(model).any()


def test_reading_an_adapter_that_is_not_attached_is_refused() -> None:
    model = small_model()
    for read in (read_shared, read_personal, shared_parameters, personal_parameters):
        with pytest.raises(BadWeights):
            read(model)


@pytest.mark.parametrize("rank", [-1, 9])
def test_a_shared_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(BadSettings):
        SharedAdapterSpec(rank)


@pytest.mark.parametrize("placement", ["harmonic", "noise"])
def test_a_shared_adapter_can_shift_one_envelope(placement: SharedPlacement) -> None:
    model, batch = small_model(), batch_of(2)
    before = model.envelopes(batch)
    spec = SharedAdapterSpec(1, placement)
    assert spec.size == 160
    attach_shared(model, spec)
    assert all(torch.equal(a, b) for a, b in zip(before, model.envelopes(batch), strict=True))
    values = np.random.default_rng(1).normal(size=spec.size).astype(np.float32)
    write_shared(model, values)
    assert np.array_equal(read_shared(model), values)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.envelopes(batch), strict=True)]
    assert changed == [placement == "harmonic", placement == "noise"]
    assert describe_shared(model) == f"rank 1, placement {placement}, 160 values"
    attach_shared(model, SharedAdapterSpec(1))
    with pytest.raises(BadWeights):
        write_shared(model, values)


@pytest.mark.parametrize(
    ("placement", "blocks"), [("all", [0, 1]), ("early", [0]), ("late", [1]), ("none", [])]
)
def test_a_personal_adapter_is_where_it_was_placed(
    placement: PersonalPlacement, blocks: list[int]
) -> None:
    model = small_model()
    spec = PersonalAdapterSpec(3, placement)
    attach_personal(model, spec)
    found = [i for i, block in enumerate(model.decoder.blocks) if block.adapter is not None]
    assert found == blocks
    count = sum(value.numel() for value in read_personal(model).values())
    assert count == spec.size(SMALL.decoder_width, SMALL.decoder_blocks)
    assert f"{count} values" in describe_personal(model)


def test_a_middle_block_is_a_late_one() -> None:
    early, late = PersonalAdapterSpec(2, "early"), PersonalAdapterSpec(2, "late")
    assert [*early.blocks(5), *late.blocks(5)] == [0, 1, 2, 3, 4]
    assert len(late.blocks(5)) == 3
    assert list(PersonalAdapterSpec(0, "all").blocks(5)) == []


def test_an_adapter_of_another_placement_is_refused_and_changes_nothing() -> None:
    model, other = small_model(), small_model()
    attach_personal(model, PersonalAdapterSpec(2, "late"))
    attach_personal(other, PersonalAdapterSpec(2, "early"))
    before = read_personal(model)
    with pytest.raises(BadWeights):
        write_personal(model, read_personal(other))
    assert all(torch.equal(before[name], value) for name, value in read_personal(model).items())


@pytest.mark.parametrize("spec", [SharedAdapterSpec, PersonalAdapterSpec])
def test_an_unknown_placement_is_refused(spec: Callable[..., object]) -> None:
    with pytest.raises(BadSettings, match="'middle'"):
        spec(2, "middle")


def test_every_layout_of_a_shared_adapter_has_a_name_of_its_own() -> None:
    layouts = shared_layouts()
    assert len(layouts) == 9 * 3
    assert layouts[SharedAdapterSpec(8, "noise").digest] == SharedAdapterSpec(8, "noise")
    # What was trained before placements were a setting still has its name.
    assert SharedAdapterSpec(2).digest == (
        "def037d7f2b6734d10bc0728d9e917f8f6e683029791a068d09218255dd1cf6b"
    )


def test_layouts_differ_by_digest() -> None:
    digests = {SharedAdapterSpec(1).digest, SharedAdapterSpec(2).digest}
    digests |= {PersonalAdapterSpec(1).digest, PersonalAdapterSpec(2).digest}
    digests |= {PersonalAdapterSpec(2, "late").digest, SharedAdapterSpec(2, "noise").digest}
    assert len(digests) == 6
    assert SharedAdapterSpec(2).digest == SharedAdapterSpec(2).digest


def test_personal_values_survive_a_round_trip() -> None:
    model, batch, hiss = small_model(), batch_of(1), hiss_of(1)
    before = model(batch, hiss)
    attach_personal(model, PersonalAdapterSpec(rank=3))
    with torch.no_grad():
        for parameter in personal_parameters(model):
            parameter.add_(0.1)
    kept, changed = read_personal(model), model(batch, hiss)
    detach_personal(model)
    assert torch.equal(model(batch, hiss), before)
    attach_personal(model, PersonalAdapterSpec(rank=3))
    write_personal(model, kept)
    assert torch.equal(model(batch, hiss), changed)
    with pytest.raises(BadWeights):
        write_personal(model, {"offset.weight": kept["offset.weight"]})


@pytest.mark.parametrize("kind", ["shared", "personal", "shared, noise", "personal, late"])
def test_per_example_gradients_equal_a_loop(kind: str) -> None:
    """What DP-SGD clips: the gradient of each example alone, with the base frozen."""
    size = 3
    batch, hiss = batch_of(size), hiss_of(size)
    wav = 0.1 * torch.randn((size, FRAMES * 160), generator=torch.Generator().manual_seed(9))
    model = small_model()
    if kind.startswith("shared"):
        attach_shared(model, SharedAdapterSpec(2, "noise" if "noise" in kind else "both"))
        trained = shared_parameters(model)
    else:
        attach_personal(model, PersonalAdapterSpec(2, "late" if "late" in kind else "all"))
        trained = personal_parameters(model)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.01 * torch.randn_like(parameter))
    expected = []
    for index in range(size):
        loss = reconstruction_loss(
            model(one_of(batch, index), hiss[index : index + 1]), wav[index : index + 1]
        )
        expected.append(torch.autograd.grad(loss.sum(), trained))
    wrapped = GradSampleModule(model.train(), loss_reduction="sum")
    reconstruction_loss(wrapped(batch, hiss), wav).sum().backward()
    for position, parameter in enumerate(trained):
        for index in range(size):
            true = expected[index][position]
            assert torch.allclose(parameter.grad_sample[index], true, rtol=1e-3, atol=1e-5)
            assert true.abs().max() > 0
