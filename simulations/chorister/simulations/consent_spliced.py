"""An old statement of the speaker, lengthened by somebody else's digits: does it pass?

The forger has a recording of the statement from before, and says the digits of the moment. The
words and the digits are then right. What is left to refuse it are the voices: of the whole, of its
parts, and of the digits alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.client.same_speaker import (
    CONSISTENCY_LIMIT,
    STATEMENT_LIMIT,
    consistency,
    likeness,
    speech_from,
    take_print,
)
from chorister.shared.console import progress
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.consent_pairs import Spoken, Trials, draw_enrolment, statements_of

# Six digits, said one by one.
_STRETCHES = 6
_STRETCH_SAMPLES = round(0.45 * SAMPLE_RATE_HZ)
_PAUSE_SAMPLES = round(0.4 * SAMPLE_RATE_HZ)
_QUIET = 0.2
_QUIETEST = 0.15


@dataclass(frozen=True, slots=True)
class Spliced:
    """What became of lengthened statements.

    Attributes:
        digits: the cosine of the digits alone with the enrolment; `same` where they are the
            speaker's own.
        whole: whether the statement passes without that check, shape (N,).
        noise: how far the background of the digits is from the statement's: mean distance of the
            log mel spectra of their quietest frames, shape (N,).
        apart: whether the digits are from another chapter, thus from another day, shape (N,).
    """

    digits: Trials
    whole: NDArray[np.bool_]
    noise: NDArray[np.float64]
    apart: NDArray[np.bool_]

    def noise_found(self, refused: float) -> float:
        """Return how many of the speaker's own digits of another day the background gives away.

        Args:
            refused: share of honest statements that the limit on the background refuses.
        """
        own = self.noise[self.digits.same & ~self.apart]
        old = self.noise[self.digits.same & self.apart]
        limit = float(np.quantile(own, 1.0 - refused))
        return float(np.mean(old > limit)) if len(old) else float("nan")


def splice(
    prints: Mapping[str, Sequence[Spoken]],
    targets: Sequence[str],
    strangers: Sequence[str],
    pairs: int,
    seed: int,
) -> Spliced:
    """Lengthen statements, half of them by the speaker's own speech and half by another's.

    Args:
        prints: of all speakers.
        targets: who enrols.
        strangers: who else says digits.
        pairs: how many.
        seed: of the draw.
    """
    rng, encoder = np.random.default_rng(seed), load_speaker_encoder()
    usable = [name for name in targets if len(statements_of(prints[name])) > 1]
    others = [name for name in (*targets, *strangers) if statements_of(prints[name])]
    target, same, score, whole, noise, apart = [], [], [], [], [], []
    with progress("Splicing", pairs) as step:
        for number in range(pairs):
            name = usable[number // 2 % len(usable)]
            own = number % 2 == 0
            spoken = statements_of(prints[name])
            statement = spoken[int(rng.integers(len(spoken)))]
            if own:
                from_ = [one for one in spoken if one.path != statement.path]
                wanted = number // (2 * len(usable)) % 2 == 1
                from_ = [
                    one for one in from_ if (one.chapter != statement.chapter) == wanted
                ] or from_
            else:
                other = others[int(rng.integers(len(others)))]
                while other == name:
                    other = others[int(rng.integers(len(others)))]
                from_ = statements_of(prints[other])
            digits = from_[int(rng.integers(len(from_)))]
            rest = [one for one in prints[name] if one.path != digits.path]
            enrolled = [one.print for one in draw_enrolment(rng, rest, statement)]
            head = load_recording(statement.path).samples
            said = load_recording(digits.path).samples
            spliced = Recording(np.concatenate([head, _one_by_one(said, rng)]), "spliced")
            of_whole = take_print(spliced, encoder)
            of_digits = take_print(speech_from(spliced, len(head) / SAMPLE_RATE_HZ), encoder)
            target.append(name)
            same.append(own)
            score.append(likeness(of_digits, enrolled))
            whole.append(
                likeness(of_whole, enrolled) >= STATEMENT_LIMIT
                and consistency([of_whole]) >= CONSISTENCY_LIMIT
            )
            noise.append(float(np.abs(_background(head) - _background(said)).mean()))
            apart.append(digits.chapter != statement.chapter)
            step()
    return Spliced(
        Trials(tuple(target), np.array(same), np.array(score)),
        np.array(whole), np.array(noise), np.array(apart),
    )  # fmt: skip


def _background(speech: FloatArray) -> FloatArray:
    """Log mel spectrum of the quietest frames, shape (80,)."""
    frames = log_mel(speech)
    level = frames.mean(axis=1)
    quiet: FloatArray = frames[level <= np.quantile(level, _QUIETEST)].mean(axis=0)
    return quiet


def _one_by_one(speech: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Six stretches of speech with pauses of its own quiet between them, shape (T,)."""
    length = _STRETCHES * _STRETCH_SAMPLES
    begin = int(rng.integers(max(len(speech) - length, 0) + 1))
    quiet = float(np.quantile(np.abs(speech), _QUIET))
    parts = []
    for at in range(begin, begin + length, _STRETCH_SAMPLES):
        parts += [
            speech[at : at + _STRETCH_SAMPLES],
            rng.normal(0.0, quiet, _PAUSE_SAMPLES).astype(np.float32),
        ]
    return np.concatenate(parts)
