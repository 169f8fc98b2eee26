"""Which recordings an evaluation uses, and for what: fixed by the folder's content alone.

Every voice gives three disjoint sets: enrolment (what the model may see of it), tests (what is
converted) and reference (what the judges know the voice by). No recording has two roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from chorister.shared.errors import BadAudio, BadCorpus, UsageError
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording
from chorister.simulations.corpus import open_corpus, read_split

SHORTEST_S = 2.5
LONGEST_S = 15.0
MIN_REFERENCE = 2
MAX_REFERENCE = 12


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker's recordings by role.

    Attributes:
        name: the speaker's label.
        enrolment: what profile and personal adapter are computed from.
        tests: what is converted, and the real speech that conversions are compared with.
        reference: what the judges' centroids and models are computed from.
    """

    name: str
    enrolment: tuple[Recording, ...]
    tests: tuple[Recording, ...]
    reference: tuple[Recording, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One conversion: a test recording of the source in the voice of the target.

    Attributes:
        source: index of the source voice.
        target: index of the target voice, another one.
        test: index of the source's test recording.
    """

    source: int
    target: int
    test: int


def read_speakers(argument: str) -> tuple[str, ...]:
    """Speakers of FILE:NAME, a list in a JSON object of lists.

    Raises:
        UsageError: the argument has no colon.
        BadCorpus: the file has no such list.
    """
    file, colon, name = argument.rpartition(":")
    if not colon:
        raise UsageError(
            "--split takes FILE:NAME, a list of speakers in a JSON file.",
            repr(argument),
            "For example --split ../shared/data/librispeech/splits.json:dev_test.",
        )
    return read_split(file, name)


def _usable(paths: Sequence[Path]) -> list[Path]:
    usable = []
    for path in paths:
        try:
            duration_s = soundfile.info(str(path)).duration
        except soundfile.SoundFileError:
            continue
        if SHORTEST_S <= duration_s <= LONGEST_S:
            usable.append(path)
    return usable


def _load(paths: Sequence[Path]) -> tuple[Recording, ...]:
    loaded = []
    for path in paths:
        try:
            loaded.append(load_recording(path))
        except BadAudio:
            continue
    return tuple(loaded)


def choose_voices(
    data: Path, speakers: Sequence[str] | None, *, enrolment: int, tests: int, most: int
) -> list[Voice]:
    """Load the first speakers that have enough recordings of 2.5 to 15 s.

    Args:
        data: a LibriSpeech or VCTK tree, or SPEAKER/... folders.
        speakers: whose; None for all. The order is that of their names.
        enrolment: recordings a voice is enrolled from, the first ones.
        tests: recordings that are converted, the next ones; the last ones are reference.
        most: stop at this many voices.

    Raises:
        BadCorpus: an unknown speaker, no data, or fewer than two with enough recordings.
    """
    voices: list[Voice] = []
    for speaker in open_corpus(data, speakers=speakers).speakers:
        paths = _usable([utterance.path for utterance in speaker.utterances])
        if len(paths) < enrolment + tests + MIN_REFERENCE:
            continue
        last = paths[enrolment + tests :][-MAX_REFERENCE:]
        voice = Voice(
            speaker.name,
            _load(paths[:enrolment]),
            _load(paths[enrolment : enrolment + tests]),
            _load(last),
        )
        if voice.enrolment and len(voice.tests) == tests and len(voice.reference) >= MIN_REFERENCE:
            voices.append(voice)
        if len(voices) == most:
            break
    if len(voices) < 2:
        raise BadCorpus(
            f"An evaluation needs two speakers with {enrolment + tests + MIN_REFERENCE} recordings"
            f" of {SHORTEST_S} to {LONGEST_S:.0f} s.",
            f"{len(voices)} in {data}",
            "Name other speakers, or lower --references.",
        )
    return voices


def fixed_pairs(voices: int, tests: int, targets: int, sources: int) -> list[Pair]:
    """Every target is paired with the voices that follow it in the list.

    Args:
        voices: how many there are, at least 2.
        tests: test recordings of each.
        targets: how many voices are targets, the first ones.
        sources: sources for each target; no voice is its own.

    Returns:
        the pairs, the same for the same numbers.
    """
    return [
        Pair((target + step) % voices, target, (target + step) % tests)
        for target in range(min(targets, voices))
        for step in range(1, min(sources, voices - 1) + 1)
    ]
