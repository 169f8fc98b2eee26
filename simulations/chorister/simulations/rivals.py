"""Two cheap rivals of the voice model, which it has to beat.

Nearest neighbours (kNN-VC: Baas, van Niekerk and Kamper, Voice conversion with just nearest
neighbors, Interspeech 2023), here in our own content features: every source frame is replaced by
the mean log-mel of the target's most similar frames. Differential conversion (after Kobayashi and
Toda, Statistical singing voice conversion with direct waveform modification, 2014): the source's
own spectrum, changed by the difference of the two speakers' means alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chorister.shared.types import FeatureSequence, FloatArray, Recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.model import VoiceModel, move_pitch
from chorister.shared.voice.profile import LOUD_PERCENTILE, SPEECH_RANGE, SpeakerProfile
from chorister.simulations.vocoder_copy import envelopes, speak

NEIGHBOURS = 4
_CORRECTIONS = 2
_CORRECTION_BANDS = 9
_FRAMES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class TargetFrames:
    """A target's frames with speech, to choose from.

    Attributes:
        content: shape (N, C), unit rows.
        log_mel: shape (N, 80).
    """

    content: FloatArray
    log_mel: FloatArray


def content_of(model: VoiceModel, mel: FloatArray, profile: SpeakerProfile) -> FloatArray:
    """Content features of a log-mel (F, 80), unit rows of shape (F, C)."""
    rows = (mel, profile.mel_mean, profile.mel_std)
    device = next(model.parameters()).device
    batch = [torch.from_numpy(np.array(row, np.float32))[None].to(device) for row in rows]
    with torch.inference_mode():
        found = model.encoder(*batch)[0].cpu().numpy()
    norm = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return np.asarray(found / norm, np.float32)


def target_frames(
    model: VoiceModel, recordings: Sequence[Recording], profile: SpeakerProfile
) -> TargetFrames:
    """Frames of the target that are not pauses.

    Args:
        model: whose content encoder names the sounds.
        recordings: of the target, at least one.
        profile: the target's.
    """
    contents, mels = [], []
    for recording in recordings:
        mel = log_mel(recording.samples)
        level = mel.mean(1)
        spoken = level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE
        contents.append(content_of(model, mel, profile)[spoken])
        mels.append(mel[spoken])
    return TargetFrames(np.concatenate(contents), np.concatenate(mels))


def convert_by_neighbours(
    model: VoiceModel,
    features: FeatureSequence,
    source: SpeakerProfile,
    target: SpeakerProfile,
    frames: TargetFrames,
    neighbours: int = NEIGHBOURS,
) -> FloatArray:
    """Replace every frame with speech by the mean of the target's nearest ones.

    The source's own pauses are kept at their distance below its speech. The vocoder's envelopes
    are corrected until what is heard has the wanted log-mel.

    Args:
        model: whose content encoder names the sounds.
        features: of the source's speech, F frames.
        source: the source speaker's enrolment.
        target: the target speaker's enrolment.
        frames: of the target.
        neighbours: how many are averaged.

    Returns:
        shape (F * 160,), float32, 16 kHz.
    """
    content = content_of(model, features.log_mel, source)
    count = min(neighbours, len(frames.content))
    chosen = np.empty_like(features.log_mel)
    for start in range(0, len(content), _FRAMES_AT_ONCE):
        part = content[start : start + _FRAMES_AT_ONCE]
        likeness = part @ frames.content.T
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        chosen[start : start + len(part)] = frames.log_mel[nearest].mean(1)
    level = features.log_mel.mean(1)
    loud = np.percentile(level, LOUD_PERCENTILE)
    below = np.minimum(level - (loud - SPEECH_RANGE), 0.0)
    wanted = (chosen + below[:, None]).astype(np.float32)
    return render(wanted, move_pitch(features.f0_hz, source, target))


def render(wanted: FloatArray, f0_hz: FloatArray, corrections: int = _CORRECTIONS) -> FloatArray:
    """Speech with a given log-mel and pitch, by the vocoder without any learning.

    Args:
        wanted: shape (F, 80).
        f0_hz: shape (F,), 0 where unvoiced.
        corrections: rounds in which the envelopes get what the result lacked.

    Returns:
        shape (F * 160,), float32; the same for the same input.
    """
    harmonic, noise = envelopes(wanted, f0_hz)
    voiced = torch.from_numpy(f0_hz > 0)[None, :, None]
    for _ in range(corrections):
        lacking = torch.from_numpy(wanted - log_mel(speak(harmonic, noise, f0_hz)))[None]
        # Smoothly, and never by noise where there is a voice: it would fill up the gaps between
        # harmonics that the wanted log-mel, a mean over other pitches, does not show.
        smooth = torch.nn.functional.avg_pool1d(
            lacking, _CORRECTION_BANDS, 1, _CORRECTION_BANDS // 2, count_include_pad=False
        )
        harmonic = harmonic + torch.where(voiced, smooth, 0.0)
        noise = noise + torch.where(voiced, 0.0, lacking)
    return speak(harmonic, noise, f0_hz)


def convert_differentially(
    fitted: tuple[Tensor, Tensor],
    features: FeatureSequence,
    source: SpeakerProfile,
    target: SpeakerProfile,
) -> FloatArray:
    """The source's own spectrum, its long-term mean and its pitch moved to the target's.

    Args:
        fitted: the recording's envelopes, from `vocoder_copy.fit_envelopes`.
        features: of the recording, F frames.
        source: the source speaker's enrolment.
        target: the target speaker's enrolment.

    Returns:
        shape (F * 160,), float32, 16 kHz.
    """
    change: NDArray[np.float32] = (target.mel_mean - source.mel_mean).astype(np.float32)
    harmonic, noise = (envelope + torch.from_numpy(change) for envelope in fitted)
    return speak(harmonic, noise, move_pitch(features.f0_hz, source, target))
