"""DP-SGD for a personal adapter that is to be given away; at home it needs no noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from chorister.client.train import KeyedNoiseOptimizer, poisson_sample
from chorister.shared.privacy.charges import personal_event
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.randomness import Randomness
from chorister.shared.settings import SegmentPrivacy
from chorister.shared.voice.model import VoiceModel


@dataclass(frozen=True, slots=True)
class PersonalPrivacy:
    """DP-SGD for a personal adapter.

    Attributes:
        segment: clip and noise.
        randomness: of sampling and noise.
    """

    segment: SegmentPrivacy
    randomness: Randomness

    def event(self, segments: int, batch_size: int, steps: int) -> PrivacyEvent | None:
        """Return what so many steps cost each segment."""
        if steps == 0:
            return None
        rate = min(1.0, batch_size / segments)
        return personal_event(self.segment.noise_multiplier, rate, steps)


class PrivateSteps:
    """DP-SGD steps on the personal adapter, with Poisson sampling (as in `train`).

    Args:
        model: with the personal adapter attached; `close` takes Opacus's hooks off again.
        parameters: the adapter's.
        inner: the optimiser that the noised gradients go to.
        privacy: clip, noise and randomness.
        segments: how many there are to train on.
        batch_size: segments a step on average.
        loss: from rows of the training set to each one's loss, shape (B,).
    """

    def __init__(
        self,
        model: VoiceModel,
        parameters: list[nn.Parameter],
        inner: torch.optim.Optimizer,
        privacy: PersonalPrivacy,
        segments: int,
        batch_size: int,
        loss: Callable[[Tensor], Tensor],
    ) -> None:
        self._network = GradSampleModule(model, loss_reduction="sum")
        self._parameters = parameters
        own = {id(p) for p in parameters}
        self._layers = [
            module
            for module in model.modules()
            if any(id(p) in own for p in module.parameters(recurse=False))
        ]
        self._segments = segments
        self._rate = min(1.0, batch_size / segments)
        self._sampler = privacy.randomness.fork("personal sampling")
        self._loss = loss
        self._optimiser = KeyedNoiseOptimizer(
            inner,
            noise_multiplier=privacy.segment.noise_multiplier,
            max_grad_norm=privacy.segment.clip_norm,
            expected_batch_size=self._rate * segments,
            loss_reduction="mean",
            randomness=privacy.randomness.fork("personal noise"),
        )

    def step(self) -> None:
        """Draw, clip, add noise, step."""
        for layer in self._layers:
            layer.train()  # Opacus's hooks sleep in eval() mode, which judging leaves behind
        self._optimiser.zero_grad(set_to_none=True)
        rows = poisson_sample(self._segments, self._rate, self._sampler)
        if rows:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                torch.autograd.backward(self._loss(torch.tensor(rows)).sum())
        else:
            for p in self._parameters:
                p.grad_sample = torch.zeros((0, *p.shape), device=p.device)  # type: ignore[attr-defined]
        self._optimiser.step()

    def close(self) -> None:
        """Take Opacus's hooks off the model."""
        self._network.remove_hooks()
        self._network.to_standard_module()
