"""Local training of the shared adapter: Opacus DP-SGD, the base frozen.

Why this is differentially private for one segment (the privacy unit): segments have fixed
boundaries and do not overlap; each is prepared from its own samples and from statistics of the
enrolment set, which is disjoint; the loss is per example; whether a segment takes part in a step
is an independent secret draw. Opacus computes and clips the per-sample gradients; its noise and its
sampler are replaced, because they use a generator that is not cryptographic unless a package is
there that is not.

Source: Abadi et al. 2016, algorithm 1, with Poisson sampling.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from chorister.client.compute import with_fallback
from chorister.client.consent import Permit
from chorister.client.material import Segments
from chorister.shared.errors import BadSettings
from chorister.shared.privacy.charges import segment_event
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.randomness import Randomness
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.types import Adapter, AdapterDelta
from chorister.shared.voice import adapters
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.batches import own_voice_batch
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.losses import reconstruction_loss
from chorister.shared.voice.model import VoiceBatch, VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.shared_head import Frozen, SharedHead, frozen_part


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """What one device trains on.

    Attributes:
        segments: the protected segments, all of one length, not overlapping, with their features.
        profile: of the speaker, from the enrolment set, which shares no sample with the segments.
    """

    segments: Segments
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

    Raises:
        BadSettings: there are no segments.
    """
    if privacy is None:
        return None
    return segment_event(
        privacy.noise_multiplier, sampling_probability(task, segments), task.local_steps
    )


def sampling_probability(task: TrainingTask, segments: int) -> float:
    """Return the probability with which each segment joins a step, in (0, 1].

    Raises:
        BadSettings: there are no segments.
    """
    if segments < 1:
        raise BadSettings(
            "A device trains on at least one segment.", "none", "Record more speech for training."
        )
    return min(1.0, task.expected_batch_size / segments)


def train_shared_adapter(
    model: VoiceModel,
    spec: SharedAdapterSpec,
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
        model: the base with the shared adapter attached; its other parameters do not change. It is
            trained where it is, and moved to the CPU where a GPU fails: nothing has left then.
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
    probability = sampling_probability(task, len(material.segments))
    if adapter.spec != spec.digest or len(adapter.values) != spec.size:
        raise BadSettings(
            f"The shared adapter has layout {spec.digest[:12]} with {spec.size} values.",
            f"layout {adapter.spec[:12]} with {len(adapter.values)}",
            "Update the device so that it knows the federation's layout.",
        )
    return with_fallback(
        next(model.parameters()).device,
        lambda device: _train_on(
            device, model, adapter, material, task, privacy, probability, randomness
        ),
    )


def _train_on(
    device: torch.device,
    model: VoiceModel,
    adapter: Adapter,
    material: TrainingMaterial,
    task: TrainingTask,
    privacy: SegmentPrivacy | None,
    probability: float,
    randomness: Randomness,
) -> AdapterDelta:
    model.to(device)
    adapters.write_shared(model, adapter.values)
    expected = probability * len(material.segments)
    sampler = randomness.fork("segment sampling")
    samples = [
        poisson_sample(len(material.segments), probability, sampler)
        for _ in range(task.local_steps)
    ]
    # What some step will use goes through the frozen base once.
    used = sorted(set().union(*samples)) or [0]
    own = material.segments.select(used)
    batch, targets = own_voice_batch(own.recordings, material.profile, own.features)
    model.eval().requires_grad_(False)
    examples = Examples(frozen_in_half(model, batch.to(device)), targets.to(device))
    row = {segment: i for i, segment in enumerate(used)}
    excitation = torch.Generator().manual_seed(
        int.from_bytes(randomness.fork("excitation").bytes(7), "big")
    )
    with _trainable(model) as head:
        learner = (
            _PlainLearner(head, task, expected)
            if privacy is None
            else _PrivateLearner(head, task, expected, privacy, randomness.fork("segment noise"))
        )
        try:
            for sample in samples:
                rows = torch.tensor([row[i] for i in sample], dtype=torch.long, device=device)
                learner.step(examples.select(rows), excitation)
        finally:
            learner.close()
    return AdapterDelta(adapters.read_shared(model) - adapter.values)


def frozen_in_half(model: VoiceModel, batch: VoiceBatch) -> Frozen:
    """Return `frozen_part`, in half precision where that is faster (CUDA) and in float32 elsewhere.

    Nothing is trained there and nothing is clipped there: what DP-SGD counts, the gradients of the
    head, their norms and the noise, is float32 everywhere.
    """
    device = batch.log_mel.device
    if device.type != "cuda":
        return frozen_part(model, batch)
    kind = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    with torch.autocast(device.type, dtype=kind):
        found = frozen_part(model, batch)
    return Frozen(found.envelopes.float(), found.followed.float(), found.f0_hz.float())


@dataclass(frozen=True, slots=True)
class Examples:
    """Some segments, ready for the head: what it reads and what it shall say.

    Attributes:
        frozen: B examples.
        targets: shape (B, F * 160).
    """

    frozen: Frozen
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: Tensor) -> Examples:
        """Return some of the examples."""
        return Examples(self.frozen.select(rows), self.targets[rows])


class _PlainLearner:
    """SGD without privacy, for baselines."""

    def __init__(self, head: SharedHead, task: TrainingTask, expected: float) -> None:
        self._head = head
        self._expected = expected
        self._optimiser = torch.optim.SGD(
            head.parameters(), lr=task.learning_rate, momentum=task.momentum
        )

    def step(self, examples: Examples, excitation: torch.Generator) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        if len(examples):
            loss = _losses(self._head, examples, excitation).sum() / self._expected
            torch.autograd.backward(loss)
            self._optimiser.step()

    def close(self) -> None:
        """Nothing to undo."""


class _PrivateLearner:
    """DP-SGD by Opacus: a gradient a segment, clipped, summed, noised, over the expected batch."""

    def __init__(
        self,
        head: SharedHead,
        task: TrainingTask,
        expected: float,
        privacy: SegmentPrivacy,
        noise: Randomness,
    ) -> None:
        self._network = GradSampleModule(head, loss_reduction="sum")
        self._parameters = [p for p in head.parameters() if p.requires_grad]
        self._optimiser = KeyedNoiseOptimizer(
            torch.optim.SGD(self._parameters, lr=task.learning_rate, momentum=task.momentum),
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=expected,
            loss_reduction="mean",
            randomness=noise,
        )

    def step(self, examples: Examples, excitation: torch.Generator) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        if len(examples):
            loss = _losses(self._network, examples, excitation).sum()
            with warnings.catch_warnings():
                # Torch notes that the frozen inputs need no gradient, which is what is wanted.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                torch.autograd.backward(loss)
        else:
            # An empty Poisson sample still takes its noise: leaving it out would tell that it was.
            for p in self._parameters:
                empty = torch.zeros((0, *p.shape), device=p.device)
                p.grad_sample = empty  # type: ignore[attr-defined]
        self._optimiser.step()

    def close(self) -> None:
        """Take Opacus's hooks off the model, which others will use."""
        self._network.remove_hooks()
        self._network.to_standard_module()


class KeyedNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser with noise from our own generator instead of torch's."""

    def __init__(self, *args: Any, randomness: Randomness, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._randomness = randomness

    def add_noise(self) -> None:
        """Add N(0, (noise_multiplier * clip_norm)^2) to every coordinate of the clipped sum."""
        scale = self.noise_multiplier * self.max_grad_norm
        for p in self.params:
            noise = self._randomness.normal(p.numel()) * scale
            own = torch.from_numpy(noise).to(p.summed_grad.dtype).to(p.summed_grad.device)
            p.grad = (p.summed_grad + own.view_as(p)).view_as(p)


def _losses(head: nn.Module, examples: Examples, excitation: torch.Generator) -> Tensor:
    frozen = examples.frozen
    # Drawn on the CPU: the same places in the noise on every machine.
    hiss = draw_hiss(examples.targets.shape, excitation).to(examples.targets.device)
    wav = head(frozen.envelopes, frozen.followed, frozen.f0_hz, hiss)
    return reconstruction_loss(wav, examples.targets)


def poisson_sample(n: int, probability: float, randomness: Randomness) -> list[int]:
    """Return the indices that joined, each independently with the probability (2**-53 steps)."""
    uniform = (randomness.uint64(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return [int(i) for i in np.flatnonzero(uniform < probability)]


@contextmanager
def _trainable(model: VoiceModel) -> Iterator[SharedHead]:
    """Let the shared adapter, and nothing else, be trained inside the block."""
    head = SharedHead(model)
    head.shift.train().requires_grad_(True)  # Opacus's hooks sleep in eval() mode
    try:
        yield head
    finally:
        head.shift.eval().requires_grad_(False)
