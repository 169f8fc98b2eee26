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

from chorister.client.probes import Probe
from chorister.shared.errors import BadAudio
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.base import BASE_WEIGHTS
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.mixture import Background, VoiceMixture, read_background
from chorister.shared.voice.model import VoiceModel, move_pitch
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.shared.voice.profile import SpeakerProfile

BACKGROUND_FILE = "background.safetensors"
BACKGROUND_SHA256 = "7c6ce5303d3f235a05dcff94f31a603d65436da9a2d63a59a929c94101cabc26"
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
        # A probe in which no phone was heard tells nothing about words.
        heard = recogniser is not None and any(probe.phones for probe in probes)
        self.words_by = WORDS_BY_PHONES if heard else WORDS_BY_CONTENT

    def look(self, model: VoiceModel, seed: int = 0) -> Opinion:
        """Convert every probe to the speaker and judge what comes out.

        Args:
            model: as it stands, with or without an adapter.
            seed: of the vocoder's noise.
        """
        likeness, words = [], []
        for probe in self._probes:
            speech = say_probe(model, probe, self._profile, seed=seed)
            mel = log_mel(speech)
            likeness.append(self._voice.ratio(mel))
            if self.words_by == WORDS_BY_CONTENT:
                words.append(content_distance(model, probe, mel, self._profile))
            elif probe.phones and self._recogniser is not None:
                heard = list(probe.phones)
                words.append(self._recogniser.phone_error_rate(heard, speech))
        return Opinion(float(np.mean(likeness)), float(np.mean(words)), self.words_by)


def say_probe(
    model: VoiceModel, probe: Probe, target: SpeakerProfile, *, seed: int = 0
) -> FloatArray:
    """A probe in the target's voice: shape (F * 160,), float32, 16 kHz."""
    return model.say(probe.content, move_pitch(probe.f0_hz, probe, target), target, seed=seed)


@cache
def shipped_background() -> Background:
    """The background mixture that the package ships.

    Raises:
        BadWeights: it is missing, damaged or altered.
    """
    return read_background(BASE_WEIGHTS.with_name(BACKGROUND_FILE), BACKGROUND_SHA256)


def content_distance(
    model: VoiceModel, original: Probe, converted_mel: FloatArray, target: SpeakerProfile
) -> float:
    """How differently the content encoder reads a conversion and its original.

    Args:
        model: whose content encoder reads.
        original: F frames.
        converted_mel: shape (F, 80), of the conversion.
        target: whose voice it has.

    Returns:
        1 - mean cosine of the content over the original's frames with speech, 0 to 2.
    """
    read = original.content
    reread = model.content_of(converted_mel, target.mel_mean, target.mel_std)
    norms = np.linalg.norm(read, axis=1) * np.linalg.norm(reread, axis=1)
    cosines = (read * reread).sum(1) / np.maximum(norms, 1e-9)
    return float(1.0 - cosines[original.spoken > 0].mean())
