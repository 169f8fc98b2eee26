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
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.consent_pairs import Spoken, Trials, draw_enrolment, statements_of

# Six digits, said one by one.
_STRETCHES = 6
_STRETCH_SAMPLES = round(0.45 * SAMPLE_RATE_HZ)
_PAUSE_SAMPLES = round(0.4 * SAMPLE_RATE_HZ)
_QUIET = 0.2


@dataclass(frozen=True, slots=True)
class Spliced:
    """What became of lengthened statements.

    Attributes:
        digits: the cosine of the digits alone with the enrolment; `same` where they are the
            speaker's own.
        whole: whether the statement passes without that check, shape (N,).
    """

    digits: Trials
    whole: NDArray[np.bool_]


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
    target, same, score, whole = [], [], [], []
    with progress("Splicing", pairs) as step:
        for number in range(pairs):
            name = usable[number // 2 % len(usable)]
            own = number % 2 == 0
            at, after = rng.choice(len(statements_of(prints[name])), 2, replace=False)
            statement = statements_of(prints[name])[at]
            if own:
                digits = statements_of(prints[name])[after]
            else:
                other = others[int(rng.integers(len(others)))]
                while other == name:
                    other = others[int(rng.integers(len(others)))]
                spoken = statements_of(prints[other])
                digits = spoken[int(rng.integers(len(spoken)))]
            rest = [one for one in prints[name] if one.path != digits.path]
            enrolled = [one.print for one in draw_enrolment(rng, rest, statement)]
            head = load_recording(statement.path).samples
            tail = _one_by_one(load_recording(digits.path).samples, rng)
            spliced = Recording(np.concatenate([head, tail]), "spliced")
            print_ = take_print(spliced, encoder)
            digits_print = take_print(speech_from(spliced, len(head) / SAMPLE_RATE_HZ), encoder)
            target.append(name)
            same.append(own)
            score.append(likeness(digits_print, enrolled))
            whole.append(
                likeness(print_, enrolled) >= STATEMENT_LIMIT
                and consistency([print_]) >= CONSISTENCY_LIMIT
            )
            step()
    return Spliced(Trials(tuple(target), np.array(same), np.array(score)), np.array(whole))


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
