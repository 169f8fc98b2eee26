"""What the content encoder hears instead of a clean recording while a base is trained.

The decoder still has to give the clean recording: what is drawn here is what the content must not
hold. Every draw of an example comes from one generator, seeded by (seed, stage, step, index) of the
example, so a resumed training hears what an undisturbed one would have heard.

The libraries below do the work; audiomentations, which wraps the same ones, draws from global
generators, whose state a resumed run does not have.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from chorister.shared.settings import Settings
from chorister.shared.types import FloatArray
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.profile import speech_frames
from chorister.simulations.acoustics import (
    Array,
    add_noise,
    bell,
    equalise,
    image_response,
    reverberate,
    shelf,
)
from chorister.simulations.voice_change import change_formants, change_pitch

Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(ge=1.0, le=2.0)]
SnrDb = Annotated[float, Field(ge=-10.0, le=60.0)]
T60S = Annotated[float, Field(ge=0.1, le=1.0)]

ROOMS = 24
_NOISE_SLOPES_DB = (-6.0, 0.0)
_BELLS = 3
_BELL_HZ = (150.0, 5000.0)
_BELL_Q = (0.7, 2.0)
_SHELF_HZ = (2000.0, 5000.0)
_PEAK = 0.99
_ROOM_SEED = 0x700D
_SMALLEST_SPREAD = 0.1


class AugmentSettings(Settings):
    """How often the source side of an example is changed, and how far; all off by default.

    Attributes:
        pitch_chance: share of examples whose pitch is moved, formants kept.
        largest_pitch: its ratio is drawn between the reciprocal and this.
        formant_chance: share of examples whose formants are moved in the samples; filterbank
            warping (`largest_warp` of the stage) moves them in the log-mel.
        largest_formant: its ratio is drawn between the reciprocal and this.
        room_chance: share of examples that are heard in one of 24 simulated rooms.
        room_t60_s: shortest and longest reverberation time.
        noise_chance: share of examples with white to brown noise.
        noise_snr_db: lowest and highest ratio of the speech's level to the noise's.
        microphone_chance: share of examples through a drawn equaliser.
        microphone_db: largest gain or loss of each of its four parts.
        same_channel_chance: share of changed examples whose source statistics move as far as the
            example did: speakers whose enrolment was recorded in the same way.
    """

    pitch_chance: Chance = 0.0
    largest_pitch: Ratio = 1.25
    formant_chance: Chance = 0.0
    largest_formant: Ratio = 1.2
    room_chance: Chance = 0.0
    room_t60_s: tuple[T60S, T60S] = (0.15, 0.5)
    noise_chance: Chance = 0.0
    noise_snr_db: tuple[SnrDb, SnrDb] = (5.0, 30.0)
    microphone_chance: Chance = 0.0
    microphone_db: Annotated[float, Field(ge=0.0, le=20.0)] = 8.0
    same_channel_chance: Chance = 0.8

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("room_t60_s", "noise_snr_db"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is the lowest and then the highest value")
        return self

    @property
    def active(self) -> bool:
        """Whether anything is ever changed."""
        chances = (self.pitch_chance, self.formant_chance, self.room_chance)
        return max(*chances, self.noise_chance, self.microphone_chance) > 0.0


def augment(
    samples: FloatArray, settings: AugmentSettings, draw: np.random.Generator
) -> FloatArray:
    """Change an example: another voice, then a room, its noise and a microphone.

    Args:
        samples: shape (T,), float32, 16 kHz.
        settings: chances and ranges.
        draw: of everything; seed it by the place of the example in the training.

    Returns:
        shape (T,), float32, within [-1, 1], every sound where it was; the input itself where
        nothing was drawn.

    Raises:
        BadSettings: a room or a pitch is drawn and its package is not installed.
    """
    if len(samples) == 0:
        return samples
    # A generator for each kind: turning one off leaves the others as they were.
    seeds = draw.integers(2**63, size=5)
    pitch, formant, room, noise, microphone = (np.random.default_rng(int(one)) for one in seeds)
    changed = samples
    if pitch.random() < settings.pitch_chance:
        changed = change_pitch(changed, settings.largest_pitch ** pitch.uniform(-1.0, 1.0))
    if formant.random() < settings.formant_chance:
        changed = change_formants(changed, settings.largest_formant ** formant.uniform(-1.0, 1.0))
    heard: Array = changed.astype(np.float64)
    if room.random() < settings.room_chance:
        heard = reverberate(heard, _room(int(room.integers(ROOMS)), settings.room_t60_s))
    if noise.random() < settings.noise_chance:
        snr_db = noise.uniform(*settings.noise_snr_db)
        heard = add_noise(heard, snr_db, noise, noise.uniform(*_NOISE_SLOPES_DB))
    if microphone.random() < settings.microphone_chance:
        heard = equalise(_microphone(settings.microphone_db, microphone), heard)
    peak = float(np.abs(heard).max(initial=0.0))
    if peak > 1.0:
        heard *= _PEAK / peak
    return heard.astype(np.float32)


def heard_features(
    samples: FloatArray,
    log_mel_clean: FloatArray,
    statistics: tuple[FloatArray, FloatArray],
    settings: AugmentSettings,
    draw: np.random.Generator,
) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """What the content encoder reads of an augmented example.

    Args:
        samples: shape (F * 160,), float32, the clean example.
        log_mel_clean: shape (F, 80), of it.
        statistics: mel mean and spread of its speaker, shape (80,) each.
        settings: chances and ranges.
        draw: as in `augment`.

    Returns:
        log-mel of shape (F, 80), and the statistics: moved as far as the example's own speech has
        moved where the speaker is taken to have enrolled in the same way, else as they were.

    Raises:
        BadSettings: as `augment`.
    """
    enrolled_alike = draw.random() < settings.same_channel_chance
    heard = augment(samples, settings, draw)
    if np.array_equal(heard, samples):
        return log_mel_clean, statistics
    mel = log_mel(heard)
    if not enrolled_alike:
        return mel, statistics
    before, after = speech_frames(log_mel_clean), speech_frames(mel)
    mean, spread = statistics
    ratio = (after.std(axis=0) + _SMALLEST_SPREAD) / (before.std(axis=0) + _SMALLEST_SPREAD)
    moved = mean + after.mean(axis=0) - before.mean(axis=0)
    return mel, (moved.astype(np.float32), (spread * ratio).astype(np.float32))


@lru_cache(maxsize=4 * ROOMS)
def _room(index: int, t60_s: tuple[float, float]) -> Array:
    """One of the rooms; made when it is first drawn, always the same."""
    draw = np.random.default_rng([_ROOM_SEED, index])
    return image_response(float(draw.uniform(*t60_s)), draw)


def _microphone(largest_db: float, draw: np.random.Generator) -> Array:
    """Sections of three bells and a shelf."""
    gains_db = draw.uniform(-largest_db, largest_db, _BELLS + 1)
    centres_hz = np.exp(draw.uniform(np.log(_BELL_HZ[0]), np.log(_BELL_HZ[1]), _BELLS))
    widths = draw.uniform(_BELL_Q[0], _BELL_Q[1], _BELLS)
    parts = zip(centres_hz, gains_db, widths, strict=False)
    bells = [bell(float(hz), float(db), float(q)) for hz, db, q in parts]
    return np.stack([*bells, shelf(float(draw.uniform(*_SHELF_HZ)), float(gains_db[-1]))])
