"""What a device computes on: there is no GPU here, so one that fails is made up."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from chorister.client import compute
from chorister.shared.errors import UsageError


@pytest.fixture(autouse=True)
def nothing_failed(monkeypatch):
    monkeypatch.setattr(compute, "_failed", set())


def has(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"),
     ({"cuda": True, "mps": True}, "cuda")],
)  # fmt: skip
def test_auto_takes_the_best_that_is_there(monkeypatch, there, chosen):
    has(monkeypatch, **there)
    assert compute.best_device().type == chosen
    assert compute.best_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_is_refused_with_what_to_do(monkeypatch):
    has(monkeypatch)
    with pytest.raises(UsageError, match="driver"):
        compute.best_device("cuda")


def test_a_gpu_that_fails_is_given_up_for_the_cpu(monkeypatch):
    has(monkeypatch, cuda=True)
    asked = []

    def act(device):
        asked.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 3

    assert compute.with_fallback(compute.best_device(), act) == 3
    assert asked == ["cuda", "cpu"]
    assert compute.best_device().type == "cpu"
    assert compute.best_device("cuda").type == "cpu"


def test_what_fails_on_the_cpu_fails():
    def act(device):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        compute.with_fallback(torch.device("cpu"), act)


def test_training_falls_back_and_gives_what_the_cpu_gives(
    monkeypatch, trainable_model, material, permits
):
    from chorister.client import train
    from chorister.shared.settings import SegmentPrivacy, TrainingTask
    from chorister.shared.types import Adapter
    from chorister.shared.voice import adapters
    from chorister.simulations.randomness import SimulatedRandomness

    spec = adapters.SharedAdapterSpec(1)

    def trained():
        return train.train_shared_adapter(
            trainable_model, spec, Adapter(adapters.read_shared(trainable_model) * 0, spec.digest),
            material(4), TrainingTask(local_steps=2, expected_batch_size=2), SegmentPrivacy(),
            permits("training"), 1_800_000_000, SimulatedRandomness(3),
        ).values  # fmt: skip

    expected = trained()
    true, tried = train._train_on, []

    def fails_once(device, *rest):
        tried.append(device.type)
        if len(tried) == 1:
            raise RuntimeError("the driver was lost in sleep")
        return true(device, *rest)

    monkeypatch.setattr(train, "_train_on", fails_once)
    monkeypatch.setattr(train, "with_fallback", lambda device, act: compute.with_fallback(
        torch.device("cuda"), act))  # fmt: skip
    assert (trained() == expected).all()
    assert tried == ["cuda", "cpu"]


def test_half_precision_is_for_cuda_alone(trainable_model, material):
    """On the CPU the frozen part is float32, bit for bit; CUDA itself is not tried here."""
    from chorister.client.train import frozen_in_half
    from chorister.shared.voice.batches import own_voice_batch
    from chorister.shared.voice.shared_head import frozen_part

    own = material(3)
    batch, _ = own_voice_batch(own.segments.recordings, own.profile, own.segments.features)
    one, two = frozen_in_half(trainable_model, batch), frozen_part(trainable_model, batch)
    assert torch.equal(one.envelopes, two.envelopes)
    assert torch.equal(one.followed, two.followed)
    assert one.envelopes.dtype == torch.float32


def test_limits_hold_in_a_process_of_their_own():
    code = (
        "import torch, numpy as np; from chorister.client.compute import limit_process; "
        "limit_process(1, 2.0); assert torch.get_num_threads() == 1\n"
        "try:\n np.ones(6 * 2**30, np.uint8)\nexcept MemoryError:\n print('bounded')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.stdout.strip() == "bounded", found.stderr
