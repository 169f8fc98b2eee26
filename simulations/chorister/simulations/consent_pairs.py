"""Pairs of a statement and an enrolment, of one speaker or of two, from a corpus."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chorister.client.same_speaker import VoicePrint, likeness, take_print
from chorister.shared.console import progress
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.voice.audio import load_recording, probe_recording
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.corpus import open_corpus, read_split

# Of splits.json: the speakers that figures are reported on, and those the limit was chosen on. The
# encoder was trained on none of them.
REPORTED, CHOOSING = "dev_test", "clients"
_TARGETS = {REPORTED: (REPORTED,), CHOOSING: (CHOOSING, "base_held_out")}
# One utterance each: they only ever try to pass for others, one half here, one half there.
_STRANGERS = "clients_cross_device"
STATEMENT_S = 6.0
ENROLMENT_S = 20.0
_SHORTEST_S = 2.5
_MOST_UTTERANCES = 40
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance.

    Attributes:
        path: of its file.
        chapter: what was read; another one is another day.
        seconds: its length.
        print: by the shipped encoder.
    """

    path: Path
    chapter: str
    seconds: float
    print: VoicePrint


@dataclass(frozen=True, slots=True)
class Trials:
    """Scores of pairs.

    Attributes:
        target: who enrolled, one name a pair.
        same: whether the same speaker made the statement, shape (N,).
        score: cosine of statement and enrolment, shape (N,).
    """

    target: tuple[str, ...]
    same: NDArray[np.bool_]
    score: NDArray[np.float64]


def speakers_for(data: Path, which: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return who enrols, and who else tries to pass for them.

    Args:
        data: folder with the corpus.
        which: `REPORTED` or `CHOOSING`; without splits.json beside the corpus it is everybody.

    Raises:
        BadCorpus: the corpus has fewer than two speakers.
    """
    root = _root(data)
    splits = root / "splits.json"
    if not splits.is_file():
        names = tuple(speaker.name for speaker in open_corpus(root).speakers)
        return names, ()
    targets = tuple(name for split in _TARGETS[which] for name in read_split(splits, split))
    strangers = read_split(splits, _STRANGERS)
    half = len(strangers) // 2
    return targets, strangers[half:] if which == REPORTED else strangers[:half]


def read_prints(data: Path, names: Collection[str]) -> dict[str, list[Spoken]]:
    """Return the utterances of speakers, at most 40 of each, none shorter than 2.5 s.

    Raises:
        BadCorpus: one of the speakers is not in the corpus.
    """
    encoder = load_speaker_encoder()
    corpus = open_corpus(_root(data), speakers=tuple(names))
    found: dict[str, list[Spoken]] = {}
    with progress("Reading voices", len(corpus.speakers)) as step:
        for speaker in corpus.speakers:
            own: list[Spoken] = []
            # Every so many, so that all chapters are among them.
            stride = -(-len(speaker.utterances) // _MOST_UTTERANCES)
            for utterance in speaker.utterances[::stride]:
                try:
                    if probe_recording(utterance.path) < _SHORTEST_S:
                        continue
                    recording = load_recording(utterance.path)
                except BadAudio:
                    continue
                own.append(
                    Spoken(
                        utterance.path,
                        _chapter(utterance.path),
                        recording.duration_s,
                        take_print(recording, encoder),
                    )
                )
            found[speaker.name] = own
            step()
    return found


def draw_trials(
    prints: Mapping[str, Sequence[Spoken]],
    targets: Sequence[str],
    strangers: Sequence[str],
    pairs: int,
    seed: int,
    *,
    apart: bool = False,
) -> Trials:
    """Draw pairs, half of them of one speaker, the speakers in turn, and score them.

    Args:
        prints: of all speakers.
        targets: who enrols; those with too little speech are left out.
        strangers: who else makes statements.
        pairs: how many, at least 2.
        seed: of the draw.
        apart: statement and enrolment come from different chapters.

    Raises:
        BadCorpus: nobody has enough speech for a statement and an enrolment.
    """
    rng = np.random.default_rng(seed)
    usable = [name for name in targets if _enough(prints[name], apart=apart)]
    others = [name for name in (*targets, *strangers) if statements_of(prints[name])]
    if not usable or len(others) < 2:
        raise BadCorpus(
            f"A pair needs an utterance of {STATEMENT_S:.0f} s and {ENROLMENT_S:.0f} s of others.",
            f"{len(usable)} such speaker(s) among {len(targets)}",
            "Name a corpus with more speech for each speaker.",
        )
    target, same, score = [], [], []
    for number in range(pairs):
        name = usable[number // 2 % len(usable)]
        own = bool(number % 2 == 0)
        statement = _choose(rng, statements_of(prints[name]))
        if not own:
            other = _choose(rng, [one for one in others if one != name])
            enrolled = draw_enrolment(rng, prints[name], statement, apart=apart)
            statement = _choose(rng, statements_of(prints[other]))
        else:
            enrolled = draw_enrolment(rng, prints[name], statement, apart=apart)
        target.append(name)
        same.append(own)
        score.append(likeness(statement.print, [one.print for one in enrolled]))
    return Trials(tuple(target), np.array(same), np.array(score))


def draw_enrolment(
    rng: np.random.Generator, spoken: Sequence[Spoken], statement: Spoken, *, apart: bool = False
) -> list[Spoken]:
    """Return utterances of a speaker, 20 s or a little more, without the statement."""
    left = [
        one
        for one in spoken
        if one.path != statement.path and not (apart and one.chapter == statement.chapter)
    ]
    chosen: list[Spoken] = []
    for at in rng.permutation(len(left)):
        chosen.append(left[at])
        if sum(one.seconds for one in chosen) >= ENROLMENT_S:
            break
    return chosen


def _enough(spoken: Sequence[Spoken], *, apart: bool) -> bool:
    for statement in statements_of(spoken):
        rest = sum(
            one.seconds
            for one in spoken
            if one.path != statement.path and not (apart and one.chapter == statement.chapter)
        )
        if rest < ENROLMENT_S:
            return False
    return bool(statements_of(spoken))


def statements_of(spoken: Sequence[Spoken]) -> list[Spoken]:
    """Return the utterances that are long enough to stand for a statement."""
    return [one for one in spoken if one.seconds >= STATEMENT_S]


def _choose(rng: np.random.Generator, items: Sequence[_Item]) -> _Item:
    return items[int(rng.integers(len(items)))]


def _chapter(path: Path) -> str:
    parts = path.stem.split("-")
    return parts[1] if len(parts) == 3 else ""


def _root(data: Path) -> Path:
    inside = data / "librispeech"
    return inside if inside.is_dir() else data
