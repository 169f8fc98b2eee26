"""The loss of one training step, for each kind of stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chorister.shared.voice.encoder import with_noise
from chorister.shared.voice.losses import SpectralLoss
from chorister.shared.voice.model import HIGHEST_PITCH_HZ, LOWEST_PITCH_HZ, VoiceModel
from chorister.shared.voice.torch_mel import LogMel
from chorister.simulations.align import PHONES
from chorister.simulations.base_batches import Batch
from chorister.simulations.base_recipe import StageSettings


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What a step minimises and what it reports.

    Attributes:
        total: scalar with a gradient.
        parts: name to value, for the log.
    """

    total: Tensor
    parts: dict[str, float]


class Trainee(nn.Module):
    """The model with what only its training needs.

    Args:
        model: the voice model.
        judge: log-mel (B, F, 80) to speaker vectors (B, 256), differentiable; swapped stages only.
    """

    def __init__(self, model: VoiceModel, judge: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.phones = nn.Linear(model.settings.content, len(PHONES))
        self.spectral = SpectralLoss()
        self.log_mel = LogMel()
        # In a list: the judge's weights are neither trained nor saved with the model's.
        self._judge = [judge]

    def step(self, batch: Batch, stage: StageSettings, generator: torch.Generator) -> StepLoss:
        """Loss of one batch.

        Args:
            batch: B examples.
            stage: weights and noise.
            generator: of all noise in the step.
        """
        model = self.model
        content = model.encoder(batch.log_mel, batch.source_mean, batch.source_std)
        noisy = with_noise(content, stage.content_noise, generator)
        condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
        envelopes = model.decoder(noisy, batch.f0_hz, condition)
        hiss = torch.randn(batch.wav.shape, generator=generator)
        wav = model.vocoder(*envelopes, batch.f0_hz, hiss)
        reconstruction = self.spectral(wav, batch.wav).mean()
        total = reconstruction
        parts = {"reconstruction": float(reconstruction.detach())}
        if stage.phone_weight > 0 and bool((batch.phones >= 0).any()):
            guess = self.phones(noisy).flatten(0, 1)
            phones = nn.functional.cross_entropy(guess, batch.phones.flatten(), ignore_index=-1)
            total = total + stage.phone_weight * phones
            parts["phones"] = float(phones.detach())
        if stage.kind == "swapped":
            swapped = self._swapped(batch, noisy, content, stage, hiss)
            total = total + swapped.total
            parts |= swapped.parts
        return StepLoss(total, parts)

    def _swapped(
        self, batch: Batch, noisy: Tensor, content: Tensor, stage: StageSettings, hiss: Tensor
    ) -> StepLoss:
        """Every example spoken by the next one's speaker: near the target, same content."""
        model = self.model
        vector, centroid = batch.vector.roll(1, 0), batch.centroid.roll(1, 0)
        mean, std = batch.target_mean.roll(1, 0), batch.target_std.roll(1, 0)
        f0_hz = _swap_pitch(batch.f0_hz, batch.log_f0)
        condition = model.decoder.condition(vector, mean, std)
        wav = model.vocoder(*model.decoder(noisy, f0_hz, condition), f0_hz, hiss)
        mel = self.log_mel(wav)
        judge = self._judge[0]
        if judge is None:
            raise RuntimeError("a swapped stage needs a judge of speakers")
        speaker = 1.0 - (judge(mel) * centroid).sum(dim=1).mean()
        again = model.encoder(mel, mean, std)
        cycle = (again - content.detach()).square().mean()
        total = stage.speaker_weight * speaker + stage.cycle_weight * cycle
        return StepLoss(total, {"speaker": float(speaker.detach()), "cycle": float(cycle.detach())})


def _swap_pitch(f0_hz: Tensor, log_f0: Tensor) -> Tensor:
    """F0 (B, F) moved to the median and spread (B, 2) of the next example's speaker."""
    median, spread = log_f0[:, :1], log_f0[:, 1:]
    ratio = (spread.roll(1, 0) / spread).clamp(0.5, 2.0)
    moved = median.roll(1, 0) + ratio * (f0_hz.clamp(min=1.0).log() - median)
    moved = moved.exp().clamp(LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ)
    return torch.where(f0_hz > 0, moved, torch.zeros_like(moved))


@torch.no_grad()
def set_directions(model: VoiceModel, batches: list[Batch]) -> None:
    """Writes the leading principal directions of the decoder's last hidden layer into the model.

    Args:
        model: changed in place: along each direction the data then has variance 1.
        batches: what to compute them on.
    """
    rows = []
    for batch in batches:
        content = model.encoder(batch.plain_log_mel, batch.target_mean, batch.target_std)
        condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
        rows.append(model.decoder.hidden(content, batch.f0_hz, condition).flatten(0, 1))
    hidden = torch.cat(rows).double()
    mean = hidden.mean(dim=0)
    covariance = (hidden - mean).T @ (hidden - mean) / len(hidden)
    values, vectors = torch.linalg.eigh(covariance)
    count = model.decoder.directions.shape[1]
    leading = vectors[:, -count:].flip(1) / values[-count:].flip(0).clamp(min=1e-9).sqrt()
    model.decoder.directions.copy_(leading.float())
    model.decoder.directions_mean.copy_(mean.float())


@torch.no_grad()
def validation_loss(trainee: Trainee, batches: list[Batch], seed: int) -> float:
    """Mean reconstruction loss without warping or content noise.

    Args:
        trainee: what to judge.
        batches: always the same ones.
        seed: of the vocoder's noise.
    """
    generator = torch.Generator().manual_seed(seed)
    model, total = trainee.model, []
    for batch in batches:
        content = model.encoder(batch.plain_log_mel, batch.target_mean, batch.target_std)
        condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
        hiss = torch.randn(batch.wav.shape, generator=generator)
        wav = model.vocoder(*model.decoder(content, batch.f0_hz, condition), batch.f0_hz, hiss)
        total.append(trainee.spectral(wav, batch.wav).mean())
    return float(torch.stack(total).mean())
