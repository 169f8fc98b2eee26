"""Whether a personal adapter is better than none, by what its conversions sound like.

Two measures that the adapter is not trained on, both computed offline on the device:

    likeness   Gaussian mixtures over mel cepstra, adapted to the speaker's own recordings: the
               log-likelihood ratio to a background of many people, shipped with the package.
               Shares nothing with the speaker encoder.
    words      phone errors against what the same recogniser hears in the original, where the
               optional package pocketsphinx is installed; else how far the content encoder's
               reading of the conversion lies from its reading of the original. The content
               encoder is frozen, so an adapter cannot please it by changing it, but it is part of
               the model: `WORDS_BY_CONTENT` says so in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from chorister.shared.errors import BadAudio
from chorister.shared.types import FeatureSequence, FloatArray, Recording
from chorister.shared.voice.base import BASE_WEIGHTS
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.mixture import Background, VoiceMixture, read_background
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.shared.voice.profile import (
    LOUD_PERCENTILE,
    SPEECH_RANGE,
    SpeakerProfile,
)

BACKGROUND_FILE = "background.safetensors"
WORDS_BY_PHONES = "phone errors, by pocketsphinx"
WORDS_BY_CONTENT = "content distance, by the model's own encoder"
# By how much the words may look worse and still count as kept: the measures' own noise.
TOLERANCE = {WORDS_BY_PHONES: 0.02, WORDS_BY_CONTENT: 0.01}


@dataclass(frozen=True, slots=True)
class Opinion:
    """How conversions by a model as it stands are judged.

    Attributes:
        likeness: mean log-likelihood ratio to the speaker, nepers a frame; more is better.
        words: mean error, 0 or above; less is better.
        words_by: `WORDS_BY_PHONES` or `WORDS_BY_CONTENT`.
    """

    likeness: float
    words: float
    words_by: str

    def beats(self, before: Opinion) -> bool:
        """Whether the speaker is more alike than before and the words are as good.

        Args:
            before: of the same judge.
        """
        return (
            self.likeness > before.likeness
            and self.words <= before.words + TOLERANCE[self.words_by]
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """Speech that is converted to see what a model does.

    Attributes:
        samples: shape (T,), 16 kHz.
        features: of it, F frames.
        source: its speaker's enrolment.
    """

    samples: FloatArray
    features: FeatureSequence
    source: SpeakerProfile


class PersonalJudge:
    """Judges conversions of the same probes, before and after personalising.

    Args:
        own: recordings of the speaker, what the voice is known by; those that the adapter is
            trained on may be among them, unless a figure protects those.
        probes: speech of others, or the speaker's own in disguise; at least one.
        profile: of the speaker.
        recogniser: hears phones (`phones.find_recogniser()`); None compares content instead.

    Raises:
        BadAudio: no probes, or less than 0.2 s of speech in `own`.
        BadWeights: the shipped background is damaged.
    """

    def __init__(
        self,
        own: Sequence[Recording],
        probes: Sequence[Probe],
        profile: SpeakerProfile,
        recogniser: PhoneRecogniser | None = None,
    ) -> None:
        if not probes:
            raise BadAudio(
                "A personal voice is judged by what it makes of at least one probe.",
                "none",
                "Give recordings of others, or the speaker's own in disguise.",
            )
        self._voice = VoiceMixture(shipped_background(), [log_mel(r.samples) for r in own])
        self._probes = tuple(probes)
        self._profile = profile
        self._recogniser = recogniser
        self._phones = [
            [] if recogniser is None else recogniser.recognise(probe.samples) for probe in probes
        ]
        # A probe in which no phone is heard tells nothing about words.
        self.words_by = WORDS_BY_PHONES if any(self._phones) else WORDS_BY_CONTENT

    def look(self, model: VoiceModel, seed: int = 0) -> Opinion:
        """Convert every probe to the speaker and judge what comes out.

        Args:
            model: as it stands, with or without an adapter.
            seed: of the vocoder's noise.
        """
        likeness, words = [], []
        for probe, phones in zip(self._probes, self._phones, strict=True):
            speech = model.convert(probe.features, probe.source, self._profile, seed=seed)
            mel = log_mel(speech)
            likeness.append(self._voice.ratio(mel))
            if self.words_by == WORDS_BY_CONTENT:
                words.append(
                    content_distance(model, probe.features, probe.source, mel, self._profile)
                )
            elif phones and self._recogniser is not None:
                words.append(self._recogniser.phone_error_rate(phones, speech))
        return Opinion(float(np.mean(likeness)), float(np.mean(words)), self.words_by)


@cache
def shipped_background() -> Background:
    """The background mixture that the package ships.

    Raises:
        BadWeights: it is missing or damaged.
    """
    return read_background(BASE_WEIGHTS.with_name(BACKGROUND_FILE))


def content_distance(
    model: VoiceModel,
    original: FeatureSequence,
    source: SpeakerProfile,
    converted_mel: FloatArray,
    target: SpeakerProfile,
) -> float:
    """How differently the content encoder reads a conversion and its original.

    Args:
        model: whose content encoder reads.
        original: F frames.
        source: the original's speaker.
        converted_mel: shape (F, 80), of the conversion.
        target: whose voice it has.

    Returns:
        1 - mean cosine of the content over the original's frames with speech, 0 to 2.
    """
    read, reread = (
        _content(model, mel, profile)
        for mel, profile in ((original.log_mel, source), (converted_mel, target))
    )
    level = original.log_mel.mean(axis=1)
    spoken = level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE
    norms = np.linalg.norm(read, axis=1) * np.linalg.norm(reread, axis=1)
    cosines = (read * reread).sum(1) / np.maximum(norms, 1e-9)
    return float(1.0 - cosines[spoken].mean())


def _content(model: VoiceModel, mel: FloatArray, profile: SpeakerProfile) -> FloatArray:
    device = next(model.parameters()).device
    rows = (mel, profile.mel_mean, profile.mel_std)
    batch = [torch.from_numpy(np.array(row, np.float32))[None].to(device) for row in rows]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        found = model.encoder(*batch)[0].cpu().numpy()
    model.train(was_training)
    return np.asarray(found, np.float32)
