"""The loss of one training step, for each kind of stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chorister.shared.voice.contrast import restore_contrast, ripples_of
from chorister.shared.voice.encoder import ContentEncoder, with_noise
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.losses import SpectralLoss
from chorister.shared.voice.model import HIGHEST_PITCH_HZ, LOWEST_PITCH_HZ, VoiceModel
from chorister.shared.voice.profile import LOUD_PERCENTILE, SPEECH_RANGE
from chorister.shared.voice.recall import resolved_bands, sound_of
from chorister.shared.voice.torch_mel import LogMel
from chorister.simulations.align import PHONES
from chorister.simulations.base_batches import Batch, warp_matrix
from chorister.simulations.base_critics import (
    Critics,
    critic_loss,
    fooling_loss,
    matching_loss,
)
from chorister.simulations.base_recipe import StageSettings
from chorister.simulations.parallel import lower_precision

# Where harmonics lead in a voice, and by how much at least (nepers, about 9 dB).
_VOICED_BANDS = 24
_HARMONIC_LEAD = 1.0
_EAR_WARPS = (0.87, 1.0, 1.15)
_CONTRAST_LIMITS = (0.5, 2.0)

# Name of a loss to its weight and its value.
Terms = dict[str, tuple[float, Tensor]]


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What a step minimises and what it reports.

    Attributes:
        total: scalar with a gradient to the model.
        critics: scalar with a gradient to the critics alone; None where they do not take part.
        parts: name to value, for the log.
    """

    total: Tensor
    critics: Tensor | None
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class SpeakerJudges:
    """What swapped stages listen to; frozen.

    Attributes:
        own: log-mel (B, F, 80) to vectors (B, 256).
        teacher: samples (B, T) to GE2E vectors (B, 256); None where its weight is 0.
    """

    own: nn.Module
    teacher: nn.Module | None


class Trainee(nn.Module):
    """The model with what only its training needs.

    Args:
        model: the voice model.
        lower: type of the model's products and convolutions; None for float32. The vocoder, whose
            phase is float64, and all losses stay as they are.
    """

    def __init__(self, model: VoiceModel, lower: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.lower = lower
        self.phones = nn.Linear(model.settings.content, len(PHONES))
        self.spectral = SpectralLoss()
        self.log_mel = LogMel()

    def step(
        self,
        batch: Batch,
        stage: StageSettings,
        generator: torch.Generator,
        judges: SpeakerJudges | None = None,
        critics: Critics | None = None,
    ) -> StepLoss:
        """Loss of one batch.

        Args:
            batch: B examples.
            stage: weights and noise.
            generator: of all noise in the step.
            judges: swapped and adversarial stages only.
            critics: adversarial stages only.
        """
        model = self.model
        with lower_precision(self.lower, batch.wav):
            content = model.encoder(batch.log_mel, batch.source_mean, batch.source_std).float()
            noisy = with_noise(content, stage.content_noise, generator)
            condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
            foreign = torch.randint(2, (len(batch.wav),), generator=generator, device=noisy.device)
            said, recalled = _recalled(model, noisy, batch, foreign.to(noisy))
            harmonic, breath = model.decoder(said, batch.f0_hz, condition, recalled)
        hiss = draw_hiss(batch.wav.shape, generator)
        wav = model.vocoder(harmonic.float(), breath.float(), batch.f0_hz, hiss)
        terms = {
            "reconstruction": (1.0, self.spectral(wav, batch.wav).mean()),
            "phones": (stage.phone_weight, self._phone_loss(noisy, batch)),
            "voicing": (stage.voicing_weight, _faded(harmonic, breath, batch.f0_hz)),
        }
        verdict = None
        if judges is not None:
            converted = self._swapped(
                batch,
                stage,
                noisy=noisy,
                content=content,
                hiss=hiss,
                judges=judges,
                terms=terms,
            )
            if critics is not None:
                verdict = _criticise(
                    batch, stage, wav=wav, converted=converted, critics=critics, terms=terms
                )
        total = torch.stack([weight * term for weight, term in terms.values()]).sum()
        parts = {name: float(term.detach()) for name, (_, term) in terms.items()}
        if verdict is not None:
            parts["critics"] = float(verdict.detach())
        return StepLoss(total, verdict, parts)

    def hear(self, batch: Batch, clean_ear: ContentEncoder) -> StepLoss:
        """Loss of a hearing stage: disturbed speech shall be heard as the clean one was.

        What the clean one was heard as is the mean over the voice as it is and two warped ones:
        where they differ, the content tells of the voice.

        Args:
            batch: B examples.
            clean_ear: the encoder before the stage.
        """
        with torch.no_grad():
            heard = []
            for factor in _EAR_WARPS:
                warp = torch.from_numpy(warp_matrix(factor)).to(batch.wav.device)
                plain = (batch.plain_log_mel, batch.target_mean, batch.target_std)
                heard.append(clean_ear(*(part @ warp for part in plain)))
            wanted = clean_ear.norm(torch.stack(heard).mean(dim=0))
        with lower_precision(self.lower, batch.wav):
            content = self.model.encoder(batch.log_mel, batch.source_mean, batch.source_std)
        apart = (content.float() - wanted).square().mean()
        return StepLoss(apart, None, {"hearing": float(apart.detach())})

    def _phone_loss(self, content: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy over the labelled frames; 0 without any."""
        known = batch.phones >= 0
        if not bool(known.any()):
            return content.new_zeros(())
        return nn.functional.cross_entropy(self.phones(content[known]), batch.phones[known])

    def _swapped(
        self,
        batch: Batch,
        stage: StageSettings,
        *,
        noisy: Tensor,
        content: Tensor,
        hiss: Tensor,
        judges: SpeakerJudges,
        terms: Terms,
    ) -> Tensor:
        """Every example spoken by the next one's speaker: near the target, same content."""
        model = self.model
        mean, std = batch.target_mean.roll(1, 0), batch.target_std.roll(1, 0)
        f0_hz = swap_pitch(batch.f0_hz, batch.log_f0)
        with lower_precision(self.lower, batch.wav):
            said, condition, recalled = _for_the_next(model, noisy, batch)
            hidden = model.decoder.hidden(said, f0_hz, condition)
            harmonic, breath = model.decoder.envelopes(hidden, f0_hz, recalled)
            alone = model.decoder.own_envelopes(hidden, f0_hz, None).float()
        # Judged as it will be heard.
        gains = model.decoder.contrast
        heard = restore_contrast(harmonic.float(), breath.float(), f0_hz, gains)
        wav: Tensor = model.vocoder(*heard, f0_hz, hiss)
        mel = self.log_mel(wav)
        with lower_precision(self.lower, batch.wav):
            again = model.encoder(mel, mean, std).float()
        own = _distance(judges.own(mel), batch.centroid)
        terms["speaker"] = (stage.speaker_weight, own)
        terms["cycle"] = (stage.cycle_weight, (again - content.detach()).square().mean())
        terms["voicing_again"] = (stage.voicing_weight, _faded(harmonic, breath, f0_hz))
        if recalled is not None:
            terms["recalled"] = (stage.recalled_weight, _far_from(recalled.float(), alone, f0_hz))
        terms["phones_again"] = (stage.phone_weight, self._phone_loss(again, batch))
        if judges.teacher is not None:
            vectors = judges.teacher(wav)
            terms["teacher"] = (
                stage.teacher_weight,
                _distance(vectors, batch.teacher_centroid),
            )
            terms["residual"] = (stage.residual_weight, _residual(vectors, batch.teacher_centroid))
        return wav


def _for_the_next(
    model: VoiceModel, content: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the decoder reads to say an example in the next one's voice.

    Args:
        model: what speaks.
        content: shape (B, F, C), of the examples.
        batch: whose speakers the voices are.

    Returns:
        content (B, F, C), condition (B, 128) and, where there are tables, log-mel (B, F, 80).
    """
    target = (batch.vector, batch.target_mean, batch.target_std)
    condition = model.decoder.condition(*(row.roll(1, 0) for row in target))
    everybody = torch.ones_like(content[:, 0, 0])
    said, recalled = _recalled(model, content, batch, everybody, of_next=True)
    return said, condition, recalled


def _recalled(
    model: VoiceModel, content: Tensor, batch: Batch, foreign: Tensor, *, of_next: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The content as the target says it, and what its table holds for it.

    Without a table the content is as it was, and the second is None.

    Args:
        model: whose look-up it is.
        content: shape (B, F, C).
        batch: with its tables.
        foreign: shape (B,), 1 where the content is moved as another voice's is, else 0.
        of_next: take the tables of the next examples' speakers.
    """
    if not batch.sounds_content.shape[1]:
        return content, None
    tables = (batch.sounds_content, batch.sounds_log_mel)
    sounds_content, sounds_log_mel = (t.roll(1, 0) if of_next else t for t in tables)
    said, found = model.decoder.recall(content, sounds_content, sounds_log_mel, foreign)
    return said, found


def _far_from(recalled: Tensor, envelopes: Tensor, f0_hz: Tensor) -> Tensor:
    """How far envelopes (B, F, 160) sound from recalled frames (B, F, 80), in nepers.

    Not measured on the waveform: recalled frames are a mean over pitches, and noise would fill the
    gaps between harmonics to be like them.
    """
    apart = (sound_of(envelopes, f0_hz) - recalled.detach()).abs()
    return (resolved_bands().to(apart.device) * apart).mean()


def _faded(harmonic: Tensor, noise: Tensor, f0_hz: Tensor) -> Tensor:
    """By how much the harmonics of voiced frames miss their lead over the noise below 0.9 kHz."""
    voiced = (f0_hz > 0).unsqueeze(2)
    lead = harmonic[..., :_VOICED_BANDS] - noise[..., :_VOICED_BANDS]
    missing = nn.functional.relu(_HARMONIC_LEAD - lead.float())
    return torch.where(voiced, missing, torch.zeros_like(missing)).mean()


def _distance(vectors: Tensor, centroids: Tensor) -> Tensor:
    """1 - cosine of (B, 256) with the next example's centroid, averaged."""
    return 1.0 - (vectors * centroids.roll(1, 0)).sum(dim=1).mean()


def _residual(vectors: Tensor, centroids: Tensor) -> Tensor:
    """How much nearer (B, 256) lies to its source than the target itself does, averaged."""
    near = (vectors * centroids).sum(dim=1)
    natural = (centroids.roll(1, 0) * centroids).sum(dim=1)
    return nn.functional.relu(near - natural).mean()


def _criticise(
    batch: Batch,
    stage: StageSettings,
    *,
    wav: Tensor,
    converted: Tensor,
    critics: Critics,
    terms: Terms,
) -> Tensor:
    """Adds the model's terms of an adversarial stage; returns the loss of the critics."""
    real = critics(batch.wav)
    verdict = critic_loss(real, critics(converted.detach()))
    critics.requires_grad_(False)
    same, other = critics(wav), critics(converted)
    critics.requires_grad_(True)
    terms["fooling"] = (stage.fooling_weight, fooling_loss(other) + fooling_loss(same))
    terms["matching"] = (stage.matching_weight, matching_loss(real, same))
    return verdict


def swap_pitch(f0_hz: Tensor, log_f0: Tensor) -> Tensor:
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
    device = next(model.parameters()).device
    for batch in (one.to(device) for one in batches):
        content = model.encoder(batch.plain_log_mel, batch.target_mean, batch.target_std)
        condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
        said, _ = _recalled(model, content, batch, torch.zeros_like(content[:, 0, 0]))
        rows.append(model.decoder.hidden(said, batch.f0_hz, condition).flatten(0, 1))
    hidden = torch.cat(rows).double()
    mean = hidden.mean(dim=0)
    covariance = (hidden - mean).T @ (hidden - mean) / len(hidden)
    values, vectors = torch.linalg.eigh(covariance)
    count = model.decoder.directions.shape[1]
    leading = vectors[:, -count:].flip(1) / values[-count:].flip(0).clamp(min=1e-9).sqrt()
    model.decoder.directions.copy_(leading.float())
    model.decoder.directions_mean.copy_(mean.float())


@torch.no_grad()
def set_contrast(model: VoiceModel, batches: list[Batch], power: float) -> None:
    """Writes the gains that give conversions the contrast of speech back into the model.

    A gain is the ratio of the spreads of a cosine component over the speech frames of an example,
    in recordings and in conversions to the next example's speaker.

    Args:
        model: changed in place.
        batches: what to measure on.
        power: of that ratio, 0 to 1. Real ripples are pitch and noise as well, so that all of it
            is too much.
    """
    device = next(model.parameters()).device
    log_mel, ripples = LogMel().to(device), ripples_of().to(device)
    generator = torch.Generator(device).manual_seed(0)
    spread = torch.zeros(2, len(ripples), device=device)
    for batch in (one.to(device) for one in batches):
        content = model.encoder(batch.plain_log_mel, batch.target_mean, batch.target_std)
        f0_hz = swap_pitch(batch.f0_hz, batch.log_f0)
        said, condition, recalled = _for_the_next(model, content, batch)
        envelopes = model.decoder(said, f0_hz, condition, recalled)
        hiss = draw_hiss(batch.wav.shape, generator)
        converted = log_mel(model.vocoder(*envelopes, f0_hz, hiss))
        for row, mels in enumerate((batch.plain_log_mel, converted)):
            for mel in mels:
                spread[row] += (_spoken(mel) @ ripples.T).var(dim=0)
    gains = (spread[0] / spread[1]).sqrt().clamp(*_CONTRAST_LIMITS) ** power
    gains[0] = 1.0  # the level is not a ripple
    model.decoder.contrast.copy_(gains)


def _spoken(mel: Tensor) -> Tensor:
    """The frames of a log-mel (F, 80) that are no pause."""
    level = mel.mean(dim=1)
    return mel[level > level.quantile(LOUD_PERCENTILE / 100.0) - SPEECH_RANGE]


@torch.no_grad()
def validation_loss(trainee: Trainee, batches: list[Batch], seed: int) -> float:
    """Mean reconstruction loss without warping or content noise.

    Args:
        trainee: what to judge.
        batches: always the same ones.
        seed: of the vocoder's noise.
    """
    model, total = trainee.model, []
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for batch in (one.to(device) for one in batches):
        content = model.encoder(batch.plain_log_mel, batch.target_mean, batch.target_std)
        condition = model.decoder.condition(batch.vector, batch.target_mean, batch.target_std)
        hiss = draw_hiss(batch.wav.shape, generator)
        said, recalled = _recalled(model, content, batch, torch.zeros_like(content[:, 0, 0]))
        envelopes = model.decoder(said, batch.f0_hz, condition, recalled)
        wav = model.vocoder(*envelopes, batch.f0_hz, hiss)
        total.append(trainee.spectral(wav, batch.wav).mean())
    return float(torch.stack(total).mean())
