"""What an enrolment says of a speaker: never leaves the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import MEL_BANDS, FloatArray, Recording
from chorister.shared.voice.features import extract_features

VECTOR_SIZE = 256
# Frames whose mean log-mel lies further below the loud ones than this count as pauses.
SPEECH_RANGE = 4.0
LOUD_PERCENTILE = 95.0
_MIN_SPEECH_FRAMES = 50
_MIN_VOICED_FRAMES = 20
SMALLEST_SPREAD = 0.02
# The interquartile range of a normal distribution in standard deviations.
QUARTILES_TO_SIGMA = 1.349
MOST_SOUNDS = 2000
_SHAPES = {"vector": (VECTOR_SIZE,), "mel_mean": (MEL_BANDS,), "mel_std": (MEL_BANDS,)}
_SOUNDS = ("sounds_content", "sounds_log_mel")
_SCALARS = ("log_f0_median", "log_f0_spread", "seconds")


class Encoder(Protocol):
    """Something that names a voice by a vector, such as `speaker.SpeakerEncoder`."""

    def embed(self, log_mel: FloatArray) -> FloatArray:
        """Vector of a log-mel sequence: shape (F, 80) to (256,), unit norm."""


class Listener(Protocol):
    """Something that hears what is said, such as `model.VoiceModel`."""

    def content_of(
        self, log_mel: FloatArray, mel_mean: FloatArray, mel_std: FloatArray
    ) -> FloatArray:
        """Content of one utterance: shape (F, 80), (80,) and (80,) to (F, C)."""


@dataclass(frozen=True, slots=True, repr=False)
class SpeakerProfile:
    """One speaker as the model is conditioned on.

    Attributes:
        vector: shape (256,), float32, unit norm.
        mel_mean: shape (80,), float32, mean log-mel over the frames with speech.
        mel_std: shape (80,), float32, standard deviation over the same frames.
        log_f0_median: median of the natural logarithm of F0 in Hz over voiced frames.
        log_f0_spread: interquartile range of the same / 1.349, at least 0.02.
        seconds: how much audio it was computed from.
        sounds_content: shape (K, C), float32, what up to 2 000 frames of the enrolment say, sorted
            so that their order in time is lost.
        sounds_log_mel: shape (K, 80), float32, their log-mel.
    """

    vector: FloatArray
    mel_mean: FloatArray
    mel_std: FloatArray
    log_f0_median: float
    log_f0_spread: float
    seconds: float
    sounds_content: FloatArray
    sounds_log_mel: FloatArray

    def __repr__(self) -> str:
        return f"SpeakerProfile(seconds={self.seconds:.1f})"

    def to_bytes(self) -> bytes:
        """The profile as safetensors, for the vault."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _SHAPES}
        for name in _SCALARS:
            arrays[name] = np.array([getattr(self, name)], np.float64)
        for name in _SOUNDS:
            arrays[name] = np.ascontiguousarray(getattr(self, name), np.float32)
        return bytes(save(arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> SpeakerProfile:
        """Reads what `to_bytes` wrote.

        Raises:
            BadWeights: other content, shapes, or values that are not finite.
        """
        try:
            arrays = load(data)
        except SafetensorError as error:
            raise _bad_profile(str(error)) from error
        expected = _SHAPES | dict.fromkeys(_SCALARS, (1,))
        found = {name: array.shape for name, array in arrays.items()}
        tables = [found.pop(name, ()) for name in _SOUNDS]
        sound = [len(table) == 2 and 1 <= table[0] == tables[0][0] for table in tables]
        if found != expected or not all(sound) or tables[1][1] != MEL_BANDS:
            raise _bad_profile(f"arrays {found} and tables {tables}")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise _bad_profile("a value that is not finite")
        return cls(
            vector=arrays["vector"].astype(np.float32),
            mel_mean=arrays["mel_mean"].astype(np.float32),
            mel_std=arrays["mel_std"].astype(np.float32),
            log_f0_median=float(arrays["log_f0_median"][0]),
            log_f0_spread=float(arrays["log_f0_spread"][0]),
            seconds=float(arrays["seconds"][0]),
            sounds_content=arrays["sounds_content"].astype(np.float32),
            sounds_log_mel=arrays["sounds_log_mel"].astype(np.float32),
        )


def _bad_profile(found: str) -> BadWeights:
    return BadWeights(
        "A speaker profile holds a 256-vector, mel and pitch statistics and a table of sounds.",
        found,
        "Enrol the speaker again.",
    )


def speech_frames(log_mel: FloatArray) -> FloatArray:
    """The frames with speech, by level: pauses would drag the statistics with their length.

    Args:
        log_mel: shape (F, 80), F at least 1.

    Returns:
        shape (F', 80): those within 4 nepers of the 95th percentile of the mean log-mel.
    """
    level = log_mel.mean(axis=1)
    kept = level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE
    return np.asarray(log_mel[kept], np.float32)


def profile_from(
    recordings: Sequence[Recording], encoder: Encoder, listener: Listener
) -> SpeakerProfile:
    """Profile of the one speaker of all recordings.

    Args:
        recordings: at least one; 3 s of speech give a usable profile, 30 s a good one.
        encoder: names the voice.
        listener: the voice model, which hears what the frames say.

    Raises:
        BadAudio: no recordings, less than 0.5 s of speech or less than 0.2 s of voiced speech.
    """
    features = [extract_features(recording) for recording in recordings]
    speech = [speech_frames(feature.log_mel) for feature in features]
    f0_hz = np.concatenate([f.f0_hz for f in features]) if features else np.zeros(0, np.float32)
    voiced = f0_hz[f0_hz > 0]
    count = sum(len(frames) for frames in speech)
    if count < _MIN_SPEECH_FRAMES or len(voiced) < _MIN_VOICED_FRAMES:
        raise BadAudio(
            "A voice is enrolled from at least 0.5 s of speech with 0.2 s of voiced sounds.",
            f"{count / 100:.2f} s of speech, {len(voiced) / 100:.2f} s voiced"
            f" in {len(features)} recordings",
            "Record at least 30 s of ordinary speech in a quiet place.",
        )
    vectors = np.stack([encoder.embed(feature.log_mel) for feature in features])
    weights = np.array([len(frames) for frames in speech], np.float32)
    mean_vector = weights @ vectors
    frames = np.concatenate(speech)
    log_f0 = np.log(voiced.astype(np.float64))
    low, median, high = np.percentile(log_f0, [25.0, 50.0, 75.0])
    mel_mean, mel_std = frames.mean(axis=0), frames.std(axis=0)
    # Pauses stay in: how a recording is silent is part of how it sounds.
    log_mel = np.concatenate([feature.log_mel for feature in features])
    content = [listener.content_of(one.log_mel, mel_mean, mel_std) for one in features]
    kept = np.linspace(0, len(log_mel) - 1, min(len(log_mel), MOST_SOUNDS)).round().astype(int)
    said, sounding = np.concatenate(content)[kept], log_mel[kept]
    # Sorted by what they say: the table does not tell in which order it was said.
    order = np.lexsort(said.T)
    return SpeakerProfile(
        vector=(mean_vector / np.linalg.norm(mean_vector)).astype(np.float32),
        mel_mean=mel_mean,
        mel_std=mel_std,
        log_f0_median=float(median),
        log_f0_spread=max(float(high - low) / QUARTILES_TO_SIGMA, SMALLEST_SPREAD),
        seconds=sum(recording.duration_s for recording in recordings),
        sounds_content=said[order],
        sounds_log_mel=np.asarray(sounding[order], np.float32),
    )
