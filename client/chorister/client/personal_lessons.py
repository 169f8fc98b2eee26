"""What a personal adapter learns from: the speaker's own segments, said as if others had said them.

At a conversion the words come from somebody else. Reconstructing one's own speech from one's own
content does not teach that, so most steps read the content of a disguised copy (played slower or
faster: another voice, the same words) and still have to give the speaker's own sound. Two more
terms say what matters of it: the speaker encoder must hear the speaker, and the content must stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.batches import hiss_for, own_voice_batch, select
from chorister.shared.voice.encoder import with_noise
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.losses import SpectralLoss
from chorister.shared.voice.model import VoiceBatch, VoiceModel
from chorister.shared.voice.profile import MOST_SOUNDS, SpeakerProfile, speech_frames
from chorister.shared.voice.torch_mel import LogMel

_DISGUISES = (0.84, 0.92, 1.09, 1.19)


class VoiceEncoder(Protocol):
    """A speaker encoder that can also be learnt from, such as `speaker.SpeakerEncoder`."""

    def embed(self, log_mel: FloatArray) -> FloatArray:
        """Vector of a log-mel sequence: shape (F, 80) to (256,), unit norm."""

    def __call__(self, log_mel: Tensor) -> Tensor:
        """Vectors with a gradient: shape (B, F, 80) to (B, 256), unit norm."""


class Lessons:
    """The training set of one speaker and the loss of its segments.

    Args:
        model: with the personal adapter attached.
        training: N segments of one length.
        profile: of the speaker.
        encoder: hears whose voice it is.
        likeness_weight: of 1 - cosine between the result and the speaker's vector.
        cycle_weight: of the squared distance between the content of the result and the segment's.
        content_noise: standard deviation of the noise on the content.
        apart: every segment's loss depends on that segment and the profile alone, as DP-SGD needs:
            without disguises, whose statistics are pooled, and without tables of other segments.
    """

    def __init__(
        self,
        model: VoiceModel,
        training: Sequence[Recording],
        profile: SpeakerProfile,
        encoder: VoiceEncoder,
        *,
        likeness_weight: float,
        cycle_weight: float,
        content_noise: float,
        apart: bool,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._weights = (likeness_weight, cycle_weight)
        self._content_noise = content_noise
        device = device_of(model)
        self._vector = torch.from_numpy(np.array(profile.vector, np.float32)).to(device)
        batch, targets = own_voice_batch(training, profile)
        self._batch, self._targets = own, _ = batch.to(device), targets.to(device)
        with torch.no_grad():
            content = model.encoder(own.log_mel, own.source_mel_mean, own.source_mel_std)
            frames = content.shape[1]
            disguises = [] if apart else [_disguise(model, training, f, frames) for f in _DISGUISES]
        self._contents = [content, *disguises]
        self._halves = None if apart or len(training) < 2 else _Halves(own, content)
        self._spectral = SpectralLoss().to(device)
        self._log_mel = LogMel().to(device)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of each of some segments.

        Args:
            rows: shape (B,), indices of segments.
            generator: of disguises and noise.

        Returns:
            shape (B,).
        """
        model, own = self._model, select(self._batch, rows)
        if self._halves is not None:
            own = self._halves.give(own, rows)
        which = torch.randint(len(self._contents), (len(rows),), generator=generator)
        picked = zip(which.tolist(), rows.tolist(), strict=True)
        said = torch.stack([self._contents[disguise][row] for disguise, row in picked])
        content = with_noise(said, self._content_noise, generator)
        condition = model.decoder.condition(
            own.target_vector, own.target_mel_mean, own.target_mel_std
        )
        # What a disguise says is another voice's.
        foreign = (which > 0).to(content)
        content, recalled = model.decoder.recall(
            content, own.sounds_content, own.sounds_log_mel, foreign
        )
        envelopes = model.decoder(content, own.f0_hz, condition, recalled)
        speech = model.vocoder(*envelopes, own.f0_hz, hiss_for(own, generator))
        each: Tensor = self._spectral(speech, self._targets[rows])
        likeness_weight, cycle_weight = self._weights
        mel = self._log_mel(speech)
        if likeness_weight:
            each = each + likeness_weight * (1.0 - self._encoder(mel) @ self._vector)
        if cycle_weight:
            again = model.encoder(mel, own.target_mel_mean, own.target_mel_std)
            away = (again - self._contents[0][rows]).square().mean(dim=(1, 2))
            each = each + cycle_weight * away
        return each


def device_of(model: VoiceModel) -> torch.device:
    """Where a model computes."""
    return model.decoder.leave.weight.device


def disguised(recording: Recording, factor: float) -> Recording:
    """The recording played faster or slower: pitch and formants of somebody else.

    Args:
        recording: any.
        factor: below 1 gives a deeper, larger voice; 0.5 to 2.
    """
    count = round(len(recording.samples) / factor)
    places = np.arange(count) * factor
    samples = np.interp(places, np.arange(len(recording.samples)), recording.samples)
    return Recording(samples.astype(np.float32), f"{recording.name}*{factor}")


def _disguise(
    model: VoiceModel, training: Sequence[Recording], factor: float, frames: int
) -> Tensor:
    """Content of the disguised segments, stretched back to the segments' frames: (N, F, C)."""
    mels = [log_mel(disguised(segment, factor).samples) for segment in training]
    speech = np.concatenate([speech_frames(mel) for mel in mels])
    device = device_of(model)
    statistics = (
        torch.from_numpy(np.asarray(row, np.float32)).to(device).expand(len(mels), -1)
        for row in (speech.mean(axis=0), speech.std(axis=0))
    )
    content = model.encoder(torch.from_numpy(np.stack(mels)).to(device), *statistics)
    stretched = nn.functional.interpolate(content.transpose(1, 2), size=frames, mode="linear")
    normal: Tensor = nn.functional.layer_norm(stretched.transpose(1, 2), content.shape[2:])
    return normal


class _Halves:
    """Tables of sounds for training segments: a segment that recalled itself would trust it."""

    def __init__(self, batch: VoiceBatch, content: Tensor) -> None:
        # Neighbouring segments are of one recording, so every other one is in the other half.
        self._half = torch.arange(len(content)) % 2
        others = [self._half != half for half in (0, 1)]
        count = min(MOST_SOUNDS, *(int(rows.sum()) * content.shape[1] for rows in others))
        self._content, self._log_mel = (
            torch.stack([_spread(values[rows].flatten(0, 1), count) for rows in others])
            for values in (content, batch.log_mel)
        )

    def give(self, own: VoiceBatch, rows: Tensor) -> VoiceBatch:
        """The batch of some segments, each with the table of the half that it is not in."""
        half = self._half[rows]
        return replace(own, sounds_content=self._content[half], sounds_log_mel=self._log_mel[half])


def _spread(values: Tensor, count: int) -> Tensor:
    """`count` rows, evenly spaced."""
    return values[torch.linspace(0, len(values) - 1, count).round().long()]
