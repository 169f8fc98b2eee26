"""Local training of the shared adapter: Opacus DP-SGD, the base frozen.

Why this is differentially private for one segment (the privacy unit): segments have fixed boundaries and
do not overlap; each is prepared from its own samples and from statistics of the enrolment set, which is
disjoint; the loss is per example; whether a segment takes part in a step is an independent secret draw.
Opacus computes and clips the per-sample gradients; its noise and its sampler are replaced, because they
use a generator that is not cryptographic unless a package is there that is not.

Source: Abadi et al. 2016, algorithm 1, with Poisson sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from chorister.client.consent import Permit
from chorister.shared.errors import BadSettings
from chorister.shared.privacy.budget import PrivacyEvent
from chorister.shared.privacy.charges import segment_event
from chorister.shared.randomness import Randomness
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.types import Adapter, AdapterDelta, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import hiss_for, own_voice_batch, select
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import VoiceBatch, VoiceModel
from chorister.shared.voice.profile import SpeakerProfile


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """What one device trains on.

    Attributes:
        segments: the protected segments, all of one length, not overlapping.
        profile: of the speaker, from the enrolment set, which shares no sample with the segments.
    """

    segments: tuple[Recording, ...]
    profile: SpeakerProfile

    def __repr__(self) -> str:
        return f"TrainingMaterial(segments={len(self.segments)})"


def planned_event(
    task: TrainingTask, privacy: SegmentPrivacy | None, segments: int
) -> PrivacyEvent | None:
    """Return what training will cost the segments, before it starts; None if there is no noise.

    Args:
        task: steps and batch size.
        privacy: noise and clip; None if the run is not private.
        segments: how many the device has, at least 1.
    """
    if privacy is None:
        return None
    return segment_event(
        privacy.noise_multiplier, sampling_probability(task, segments), task.local_steps
    )


def sampling_probability(task: TrainingTask, segments: int) -> float:
    """Return the probability with which each segment joins a step, in (0, 1]."""
    return min(1.0, task.expected_batch_size / segments)


def train_shared_adapter(
    model: VoiceModel,
    spec: adapters.SharedAdapterSpec,
    adapter: Adapter,
    material: TrainingMaterial,
    task: TrainingTask,
    privacy: SegmentPrivacy | None,
    permit: Permit,
    now_s: int,
    randomness: Randomness,
) -> AdapterDelta:
    """Return what `task.local_steps` of (DP-)SGD change in the shared adapter.

    Args:
        model: the base with the shared adapter attached; its other parameters do not change.
        spec: the shared adapter's layout.
        adapter: shape (d,), the version that the server sent.
        material: segments and speaker profile.
        task: steps, batch, learning rate.
        privacy: clip and noise a segment; None trains without either (baselines only).
        permit: the consent's word that this voice may be used for training.
        now_s: Unix time.
        randomness: of sampling and noise.

    Raises:
        ConsentRefused: the permit is for something else.
        BadSettings: there are no segments, or the adapter is of another layout.
    """
    permit.require("training", now_s)
    if not material.segments:
        raise BadSettings(
            "A device trains on at least one segment.", "none", "Record more speech for training."
        )
    if adapter.spec != spec.digest or len(adapter.values) != spec.size:
        raise BadSettings(
            f"The shared adapter has layout {spec.digest[:12]} with {spec.size} values.",
            f"layout {adapter.spec[:12]} with {len(adapter.values)}",
            "Update the device so that it knows the federation's layout.",
        )
    adapters.write_shared(model, adapter.values)
    parameters = _only_shared_adapter_trains(model)
    probability = sampling_probability(task, len(material.segments))
    expected = probability * len(material.segments)
    sampler = randomness.fork("segment sampling")
    samples = [
        _poisson_sample(len(material.segments), probability, sampler)
        for _ in range(task.local_steps)
    ]
    # Only what some step will use is analysed: a device has hundreds of segments.
    used = sorted(set().union(*samples)) or [0]
    batch, targets = own_voice_batch([material.segments[i] for i in used], material.profile)
    row = {segment: i for i, segment in enumerate(used)}
    step = _private_step if privacy is not None else _plain_step
    network: nn.Module = GradSampleModule(model, loss_reduction="sum") if privacy else model
    inner = torch.optim.SGD(parameters, lr=task.learning_rate, momentum=task.momentum)
    optimiser: Any = inner
    if privacy is not None:
        optimiser = _KeyedNoiseOptimizer(
            inner,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=expected,
            loss_reduction="mean",
            randomness=randomness.fork("segment noise"),
        )
    excitation = torch.Generator().manual_seed(
        int.from_bytes(randomness.fork("excitation").bytes(7), "big")
    )
    try:
        for sample in samples:
            chosen = torch.tensor([row[i] for i in sample], dtype=torch.long)
            step(network, optimiser, parameters, batch, targets, chosen, expected, excitation)
    finally:
        if isinstance(network, GradSampleModule):
            network.remove_hooks()
            network.to_standard_module()
    trained = adapters.read_shared(model)
    return AdapterDelta(trained - adapter.values)


class _KeyedNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser with noise from our own generator instead of torch's."""

    def __init__(self, *args: Any, randomness: Randomness, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._randomness = randomness

    def add_noise(self) -> None:
        """Add N(0, (noise_multiplier * clip_norm)^2) to every coordinate of the clipped sum."""
        scale = self.noise_multiplier * self.max_grad_norm
        for p in self.params:
            noise = self._randomness.normal(p.numel()) * scale
            p.grad = (p.summed_grad + torch.from_numpy(noise).to(p.summed_grad).view_as(p)).view_as(
                p
            )


def _private_step(
    network: nn.Module,
    optimiser: Any,
    parameters: list[nn.Parameter],
    batch: VoiceBatch,
    targets: Tensor,
    chosen: Tensor,
    expected: float,
    excitation: torch.Generator,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    if len(chosen):
        rows = select(batch, chosen)
        wav = network(rows, hiss_for(rows, excitation))
        reconstruction_loss(wav, targets[chosen]).sum().backward()
    else:
        # An empty Poisson sample still takes its noise: leaving it out would tell that it was empty.
        for p in parameters:
            p.grad_sample = torch.zeros((0, *p.shape))  # type: ignore[attr-defined]
    optimiser.step()


def _plain_step(
    network: nn.Module,
    optimiser: Any,
    parameters: list[nn.Parameter],
    batch: VoiceBatch,
    targets: Tensor,
    chosen: Tensor,
    expected: float,
    excitation: torch.Generator,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    if len(chosen):
        rows = select(batch, chosen)
        wav = network(rows, hiss_for(rows, excitation))
        (reconstruction_loss(wav, targets[chosen]).sum() / expected).backward()
        optimiser.step()


def _poisson_sample(n: int, probability: float, randomness: Randomness) -> list[int]:
    """Return the indices that joined, each independently with the probability (2**-53 steps)."""
    uniform = (randomness.uint64(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return [int(i) for i in np.flatnonzero(uniform < probability)]


def _only_shared_adapter_trains(model: VoiceModel) -> list[nn.Parameter]:
    """Freeze all but the shared adapter; put only its layers into train() mode, for Opacus's hooks."""
    model.eval()
    model.requires_grad_(False)
    parameters = adapters.shared_parameters(model)
    own = {id(p) for p in parameters}
    for module in model.modules():
        if any(id(p) in own for p in module.parameters(recurse=False)):
            module.train()
    for p in parameters:
        p.requires_grad_(True)
    return parameters
