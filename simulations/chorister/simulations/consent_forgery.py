"""A forged statement: somebody else's words in the speaker's voice, by our own model.

The forger has the speaker's own recordings and the shipped model, which is the best case for the
forger short of training an adapter. What passes says how much the check of the speaker is worth
against voice conversion: little. The digits of the moment are what stands in a forger's way, and
only as long as the conversion does not keep up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chorister.client.enrolment_checks import EnrolmentPolicy
from chorister.client.recogniser_sphinx import Sphinx
from chorister.client.same_speaker import likeness, take_print
from chorister.client.statement import find_template
from chorister.shared.console import progress
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.consent_pairs import STATEMENT_S, Spoken, draw_enrolment

_LONG_WORD = 4


@dataclass(frozen=True, slots=True)
class Forged:
    """What became of forged statements.

    Attributes:
        attempts: how many.
        accepted: share that passes for the speaker at the limit.
        scores: of each, against the enrolment.
        before: share of the same statements that passes unconverted.
        understood: share in which the recogniser still hears the key words that policy asks for,
            by the long words of the transcript; NaN where no transcript is at hand.
    """

    attempts: int
    accepted: float
    scores: tuple[float, ...]
    before: float
    understood: float


def forge(
    prints: Mapping[str, Sequence[Spoken]],
    targets: Sequence[str],
    attempts: int,
    limit: float,
    seed: int,
) -> Forged:
    """Convert statements of some speakers into the voices of others, and check them.

    Args:
        prints: of the speakers.
        targets: at least two.
        attempts: how many.
        limit: of the check.
        seed: of the pairs.
    """
    rng = np.random.default_rng(seed)
    model, encoder = load_base(), load_speaker_encoder()
    scores, before, understood = [], [], []
    with progress("Forging statements", attempts) as step:
        for number in range(attempts):
            name = targets[number % len(targets)]
            others = [one for one in targets if one != name]
            spoken = [
                one
                for one in prints[others[int(rng.integers(len(others)))]]
                if one.seconds >= STATEMENT_S
            ]
            source = spoken[int(rng.integers(len(spoken)))]
            enrolled = draw_enrolment(rng, prints[name], source)
            speech = load_recording(source.path)
            made = model.convert(
                extract_features(speech),
                profile_from([speech], encoder, model),
                profile_from([load_recording(one.path) for one in enrolled], encoder, model),
                seed=number,
            )
            own = [one.print for one in enrolled]
            before.append(likeness(source.print, own) >= limit)
            scores.append(likeness(take_print(Recording(made, "forged"), encoder), own))
            heard = _understood(source.path, Recording(made, "forged"))
            if heard is not None:
                understood.append(heard)
            step()
    return Forged(
        attempts,
        float(np.mean(np.array(scores) >= limit)),
        tuple(scores),
        float(np.mean(before)),
        float(np.mean(understood)) if understood else float("nan"),
    )


def _understood(path: Path, made: Recording) -> bool | None:
    """Whether enough of an utterance's long words are heard in its conversion."""
    speaker, _, rest = path.stem.partition("-")
    transcript = path.with_name(f"{speaker}-{rest.partition('-')[0]}.trans.txt")
    if not transcript.is_file():
        return None
    lines = dict(line.split(" ", 1) for line in transcript.read_text().lower().splitlines())
    words = lines.get(path.stem, "").split()
    long = [word for word in words if len(word) >= _LONG_WORD]
    if not long:
        return None
    heard = Sphinx().hear(made.samples, words, find_template("en").digits).text.split()
    share = sum(word in heard for word in long) / len(long)
    return share >= EnrolmentPolicy().least_key_words
