"""DP-SGD on the device: sensitivity, noise, sampling, and what is left behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chorister.client import train
from chorister.client.train import (
    TrainingMaterial,
    planned_event,
    sampling_probability,
    train_shared_adapter,
)
from chorister.shared.errors import BadSettings, BadWeights, ConsentRefused
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.types import Adapter, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import own_voice_batch
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.losses import reconstruction_loss
from chorister.simulations.randomness import SimulatedRandomness

NOW_S = 1_800_000_000
SPEC = adapters.SharedAdapterSpec(rank=1)
ZERO = Adapter(np.zeros(SPEC.size, np.float32), SPEC.digest)
EVERYTHING = TrainingTask(local_steps=1, expected_batch_size=256, learning_rate=0.5)
# Noise of 1e-30 clips is lost in float32: clipping alone, as noise 0 is no setting.
SILENT = SegmentPrivacy(clip_norm=0.05, noise_multiplier=1e-30)
UNCLIPPED = SegmentPrivacy(clip_norm=1e6, noise_multiplier=1e-30)


@pytest.fixture
def run(trainable_model, permits):
    def trained(material, task=EVERYTHING, privacy=SILENT, seed=1, **changes):
        arguments = {
            "adapter": ZERO, "permit": permits("training"), "now_s": NOW_S, "spec": SPEC,
            "randomness": SimulatedRandomness(seed, "test"), **changes,
        }  # fmt: skip
        return train_shared_adapter(
            trainable_model, arguments["spec"], arguments["adapter"], material, task, privacy,
            arguments["permit"], arguments["now_s"], arguments["randomness"],
        ).values  # fmt: skip

    return trained


def gradient(model, material, seed=1):
    """The mean gradient over all segments by autograd through the whole model, in one go."""
    own = material.segments
    batch, targets = own_voice_batch(own.recordings, material.profile, own.features)
    excitation = torch.Generator().manual_seed(
        int.from_bytes(SimulatedRandomness(seed, "test").fork("excitation").bytes(7), "big")
    )
    hiss = draw_hiss(targets.shape, excitation)
    adapters.write_shared(model, ZERO.values)
    weight = model.decoder.shared.shift.weight.requires_grad_(True)
    loss = reconstruction_loss(model(batch, hiss), targets).mean()
    (found,) = torch.autograd.grad(loss, weight)
    weight.requires_grad_(False)
    return found.numpy().T.reshape(-1)


@pytest.mark.parametrize("purpose", ["conversion", "plain_export"])
def test_a_permit_for_something_else_is_refused_before_anything(run, permits, purpose):
    with pytest.raises(ConsentRefused):
        run(None, permit=permits(purpose))  # there is no material: nothing was looked at


def test_an_ended_permit_is_refused_before_anything(run):
    with pytest.raises(ConsentRefused):
        run(None, now_s=NOW_S + 3600)


def test_no_segments_are_refused(run, material):
    with pytest.raises(BadSettings, match="at least one segment"):
        run(material(0))
    with pytest.raises(BadSettings, match="at least one segment"):
        planned_event(EVERYTHING, SILENT, 0)


@pytest.mark.parametrize(
    "adapter",
    [
        Adapter(np.zeros(SPEC.size, np.float32), "0" * 64),
        Adapter(np.zeros(SPEC.size - 1, np.float32), SPEC.digest),
        Adapter(np.zeros(480, np.float32), adapters.SharedAdapterSpec(rank=2).digest),
    ],
)
def test_an_adapter_of_another_layout_is_refused(run, material, adapter):
    with pytest.raises(BadSettings, match="layout"):
        run(material(2), adapter=adapter)


def test_an_adapter_that_is_not_finite_is_refused(run, material):
    values = ZERO.values.copy()
    values[7] = np.nan
    with pytest.raises(BadWeights):
        run(material(2), adapter=Adapter(values, SPEC.digest))


def test_without_clipping_and_noise_a_step_is_plain_sgd_by_autograd(run, material, trainable_model):
    own = material(4)
    expected = -EVERYTHING.learning_rate * gradient(trainable_model, own)
    assert np.linalg.norm(expected) > 1e-3
    for privacy in (UNCLIPPED, None):
        np.testing.assert_allclose(run(own, privacy=privacy), expected, rtol=1e-3, atol=1e-6)


def test_several_steps_with_momentum_are_plain_sgd(run, material):
    task = TrainingTask(local_steps=4, expected_batch_size=256, learning_rate=0.1, momentum=0.5)
    own = material(3)
    np.testing.assert_allclose(
        run(own, task, UNCLIPPED), run(own, task, None), rtol=1e-3, atol=1e-6
    )


def test_delta_is_relative_to_the_adapter_that_was_sent(run, material, trainable_model):
    start = Adapter(np.full(SPEC.size, 0.25, np.float32), SPEC.digest)
    delta = run(material(3), adapter=start)
    np.testing.assert_allclose(
        adapters.read_shared(trainable_model), start.values + delta, atol=1e-7
    )
    assert np.linalg.norm(delta) <= EVERYTHING.learning_rate * SILENT.clip_norm * (1 + 1e-5)


def test_one_segment_moves_the_result_by_at_most_its_clip(run, material):
    # What changes with one segment is its own clipped gradient, lr * clip / expected, and once more
    # because another takes its place.
    own = material(4)
    recordings = list(own.segments.recordings)
    recordings[2] = Recording(np.zeros_like(recordings[2].samples), "unlike the others")
    outlier = TrainingMaterial(replace(own.segments, recordings=tuple(recordings)), own.profile)
    free = np.linalg.norm(run(outlier, privacy=None) - run(own, privacy=None))
    bound = free / 10
    privacy = SegmentPrivacy(
        clip_norm=bound * 4 / (2 * EVERYTHING.learning_rate), noise_multiplier=1e-30
    )
    moved = np.linalg.norm(run(outlier, privacy=privacy) - run(own, privacy=privacy))
    assert 0.01 * bound < moved <= bound * (1 + 1e-4)


def test_a_step_is_the_sum_of_each_segments_clipped_gradient(run, material, trainable_model):
    own = material(3)
    norms = []
    for i in range(3):
        alone = TrainingMaterial(own.segments.select([i]), own.profile)
        norms.append(np.linalg.norm(gradient(trainable_model, alone)))
    clip = 0.5 * min(norms)  # all are clipped
    total = run(own, privacy=SegmentPrivacy(clip_norm=clip, noise_multiplier=1e-30))
    # Three vectors of norm lr * clip / 3.
    assert np.linalg.norm(total) <= EVERYTHING.learning_rate * clip * (1 + 1e-5)
    twice = run(own, privacy=SegmentPrivacy(clip_norm=clip / 2, noise_multiplier=1e-30))
    np.testing.assert_allclose(2 * twice, total, rtol=1e-3, atol=1e-7)


def noise_of(run, material, monkeypatch=None, privacy=None):
    """The noise of single steps over many seeds, in units of what it should be."""
    privacy = privacy or SegmentPrivacy(clip_norm=0.05, noise_multiplier=2.0)
    own, lr, expected = material(2), EVERYTHING.learning_rate, 2
    silent = SegmentPrivacy(clip_norm=privacy.clip_norm, noise_multiplier=1e-30)
    unit = lr * privacy.noise_multiplier * privacy.clip_norm / expected
    return np.concatenate(
        [
            (run(own, privacy=privacy, seed=s) - run(own, privacy=silent, seed=s)) / unit
            for s in range(8)
        ]
    )


def looks_standard_normal(values):
    """Mean, variance and fourth moment within five standard errors of N(0, 1)."""
    n = len(values)
    return (
        abs(values.mean()) < 5 / np.sqrt(n)
        and abs(values.var() - 1) < 5 * np.sqrt(2 / n)
        and abs((values**4).mean() - 3) < 5 * np.sqrt(96 / n)
    )


def test_the_noise_has_the_stated_standard_deviation(run, material):
    noise = noise_of(run, material)
    assert len(noise) == 8 * SPEC.size
    assert looks_standard_normal(noise)


def test_halved_noise_would_be_noticed(run, material, monkeypatch):
    true = SimulatedRandomness.normal
    monkeypatch.setattr(SimulatedRandomness, "normal", lambda self, n: 0.5 * true(self, n))
    assert not looks_standard_normal(noise_of(run, material))


def test_coordinates_and_steps_get_independent_noise(run, material, monkeypatch):
    drawn = []
    true = SimulatedRandomness.normal

    def spy(self, n):
        drawn.append(true(self, n))
        return drawn[-1]

    monkeypatch.setattr(SimulatedRandomness, "normal", spy)
    run(material(2), replace_steps(EVERYTHING, 3), SegmentPrivacy())
    assert [len(d) for d in drawn] == [SPEC.size] * 3
    assert len(np.unique(np.concatenate(drawn))) == 3 * SPEC.size


def replace_steps(task, steps):
    return task.model_copy(update={"local_steps": steps})


def test_an_empty_sample_still_takes_its_noise(run, material, monkeypatch):
    monkeypatch.setattr(train, "poisson_sample", lambda n, p, r: [])
    privacy = SegmentPrivacy(clip_norm=0.05, noise_multiplier=1.0)
    delta = run(material(3), privacy=privacy)
    assert looks_standard_normal(delta * 3 / (EVERYTHING.learning_rate * 0.05))


def test_without_noise_an_empty_sample_changes_nothing(run, material, monkeypatch):
    monkeypatch.setattr(train, "poisson_sample", lambda n, p, r: [])
    assert np.abs(run(material(3), privacy=SILENT)).max() < 1e-28


def test_sampling_is_poisson_at_the_stated_rate():
    n, p, draws = 40, 0.2, 500
    randomness = SimulatedRandomness(3)
    samples = [train.poisson_sample(n, p, randomness) for _ in range(draws)]
    counts = np.zeros(n)
    for sample in samples:
        assert sample == sorted(set(sample))
        counts[sample] += 1
    sizes = np.array([len(s) for s in samples])
    # Each index: binomial(500, 0.2); each size: binomial(40, 0.2), so its variance is n p (1 - p).
    assert abs(counts - draws * p).max() < 5 * np.sqrt(draws * p * (1 - p))
    assert abs(sizes.mean() - n * p) < 5 * np.sqrt(n * p * (1 - p) / draws)
    assert 0.7 < sizes.var() / (n * p * (1 - p)) < 1.35


@pytest.mark.parametrize(("p", "size"), [(1.0, 9), (0.0, 0)])
def test_sampling_at_the_ends(p, size):
    assert len(train.poisson_sample(9, p, SystemRandomness())) == size


@pytest.mark.parametrize(
    ("batch", "segments", "rate"), [(8, 40, 0.2), (8, 8, 1.0), (8, 3, 1.0), (1, 1000, 0.001)]
)
def test_the_rate_that_is_charged_is_the_rate_that_is_drawn(batch, segments, rate):
    task = TrainingTask(expected_batch_size=batch, local_steps=5)
    assert sampling_probability(task, segments) == rate
    event = planned_event(task, SegmentPrivacy(noise_multiplier=1.5), segments)
    assert (event.sample_rate, event.noise_multiplier, event.steps) == (rate, 1.5, 5)
    assert planned_event(task, None, segments) is None


def test_the_sampler_is_asked_with_the_charged_rate(run, material, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "poisson_sample", lambda n, p, r: asked.append((n, p)) or [0])
    run(material(6), TrainingTask(local_steps=3, expected_batch_size=2))
    assert asked == [(6, pytest.approx(1 / 3))] * 3


def test_rounds_draw_other_samples_and_other_noise(run, material):
    task = TrainingTask(local_steps=2, expected_batch_size=2)
    rounds = SimulatedRandomness(1, "device")
    one, two = (
        run(material(6), task, SegmentPrivacy(), randomness=rounds.fork(f"round {i}"))
        for i in (1, 2)
    )
    assert not np.array_equal(one, two)


def test_the_same_seed_gives_the_same_bytes(run, material):
    task = TrainingTask(local_steps=3, expected_batch_size=2)
    one, two = (run(material(5), task, SegmentPrivacy(), seed=9) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != run(material(5), task, SegmentPrivacy(), seed=10).tobytes()


def hooks(model):
    return sum(
        len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks)
        for m in model.modules()
    )


def test_the_model_is_left_frozen_and_without_hooks(run, material, trainable_model):
    before = {k: v.clone() for k, v in trainable_model.state_dict().items() if "shared" not in k}
    run(material(3), privacy=SegmentPrivacy())
    assert hooks(trainable_model) == 0
    assert not any(p.requires_grad for p in trainable_model.parameters())
    assert not any(m.training for m in trainable_model.modules())
    for name, value in trainable_model.state_dict().items():
        if "shared" not in name:
            assert torch.equal(value, before[name])


def test_a_step_that_fails_leaves_no_hooks_behind(run, material, trainable_model, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train, "reconstruction_loss", fail)
    with pytest.raises(RuntimeError):
        run(material(3), privacy=SegmentPrivacy())
    assert hooks(trainable_model) == 0
    assert not any(p.requires_grad for p in trainable_model.parameters())


def test_nothing_of_the_voice_is_printed(material):
    assert repr(material(2)) == "TrainingMaterial(segments=2)"
