"""How well the digits of a statement are heard: by synthetic speakers, since no corpus has any.

LibriSpeech is read prose, with hardly a digit in it; the spoken commands that Chorister was also
trained on have no transcripts. So a synthesiser says whole statements with random digits, in
several voices and speeds, and the recogniser that ships hears them. What passes for other digits
than those that were said is counted on the same recordings: what was heard is held against other
challenges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from chorister.client.consent_record import Purpose
from chorister.client.enrolment_checks import digits_match, fixed_words
from chorister.client.recogniser import Recogniser
from chorister.client.statement import Challenge, find_template, make_challenge
from chorister.shared.console import progress
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.simulations.espeak import Voice, speak
from chorister.simulations.randomness import SimulatedRandomness

VOICES = (
    "gmw/en-US", "gmw/en-US+f2", "gmw/en-US+m3", "gmw/en-GB-x-rp", "gmw/en-GB-x-rp+f3",
    "gmw/en-GB-scotland",
)  # fmt: skip
# Pitch (0 to 100) and words a minute.
MANNERS = ((40, 130), (50, 150), (60, 170), (50, 190))
WRONG_EACH = 2000
_PURPOSES: tuple[Purpose, ...] = ("conversion", "training")
_QUIET_S = 0.3
_LEVEL = 0.7
_ROOM = 3e-4


@dataclass(frozen=True, slots=True)
class Hearing:
    """What was heard of one statement.

    Attributes:
        voice: of the synthesiser.
        said: the digits.
        heard: the digits.
    """

    voice: str
    said: tuple[int, ...]
    heard: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """Whether all were heard and nothing else."""
        return self.said == self.heard

    @property
    def accepted(self) -> bool:
        """Whether the check passes."""
        return digits_match(self.said, self.heard)


@dataclass(frozen=True, slots=True)
class DigitRates:
    """What the check of digits does.

    Attributes:
        statements: how many were said.
        exact: share of which all digits were heard and nothing else.
        accepted: share that passes.
        wrong_tried: how many other challenges they were held against.
        wrong_accepted: share of those that pass.
        by_voice: voice to (statements, exact, accepted).
    """

    statements: int
    exact: float
    accepted: float
    wrong_tried: int
    wrong_accepted: float
    by_voice: dict[str, tuple[int, float, float]]


def hear_digits(
    count: int, recogniser: Recogniser, library: Path, data: Path, seed: int
) -> list[Hearing]:
    """Have statements said, voices and manners in turn, and return what was heard of each.

    Args:
        count: how many.
        recogniser: of English.
        library: eSpeak NG's shared library.
        data: its data.
        seed: of digits and room noise.
    """
    found = []
    with progress("Hearing digits", count) as step:
        for number in range(count):
            voice = VOICES[number % len(VOICES)]
            pitch, rate_wpm = MANNERS[number // len(VOICES) % len(MANNERS)]
            asked = _challenge(seed, f"said {number}")
            speech = _say(
                Voice(voice, pitch=pitch, rate_wpm=rate_wpm), asked.sentence, library, data, number
            )
            digit_words = find_template(asked.locale).digits
            heard = recogniser.hear(speech, fixed_words(asked), digit_words)
            found.append(Hearing(voice, asked.digits, heard.digits))
            step()
    return found


def digit_rates(heard: Sequence[Hearing], seed: int, wrong_each: int = WRONG_EACH) -> DigitRates:
    """Return the rates of the check.

    Args:
        heard: at least one.
        seed: of the other challenges.
        wrong_each: how many each statement is held against.
    """
    passed = tried = 0
    for number, one in enumerate(heard):
        for at in range(wrong_each):
            other = _challenge(seed, f"wrong {number} {at}").digits
            if other != one.said:
                tried += 1
                passed += digits_match(other, one.heard)
    by_voice = {}
    for voice in dict.fromkeys(one.voice for one in heard):
        own = [one for one in heard if one.voice == voice]
        by_voice[voice] = (
            len(own),
            _share([o.exact for o in own]),
            _share([o.accepted for o in own]),
        )
    return DigitRates(
        len(heard),
        _share([one.exact for one in heard]),
        _share([one.accepted for one in heard]),
        tried,
        passed / max(tried, 1),
        by_voice,
    )


def _challenge(seed: int, label: str) -> Challenge:
    return make_challenge(
        SimulatedRandomness(seed, label),
        locale="en",
        speaker="Anna Miller",
        controller="The Choir",
        purposes=_PURPOSES,
        now_s=0,
    )


def _say(voice: Voice, sentence: str, library: Path, data: Path, seed: int) -> FloatArray:
    """A statement in a quiet room, shape (T,), 16 kHz."""
    rate_hz, (pcm,) = speak(voice, [sentence], library, data)
    samples = _LEVEL * np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0
    speech = np.pad(
        soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ), round(_QUIET_S * SAMPLE_RATE_HZ)
    )
    room = np.random.default_rng(seed).normal(0.0, _ROOM, len(speech))
    return (speech + room).astype(np.float32)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
