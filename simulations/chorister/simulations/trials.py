"""Which recordings an evaluation uses, and for what: fixed by the folder's content alone.

Every voice gives three disjoint sets: enrolment (what the model may see of it), tests (what is
converted) and reference (what the judges know the voice by). No recording has two roles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from chorister.shared.errors import BadAudio, BadCorpus, UsageError
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording

SHORTEST_S = 2.5
LONGEST_S = 15.0
MIN_REFERENCE = 2
MAX_REFERENCE = 12
_AUDIO = frozenset({".wav", ".flac", ".opus", ".ogg", ".mp3"})
_LIBRISPEECH = re.compile(r"(\d+)-\d+-\d+$")


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


def list_by_speaker(data: Path) -> dict[str, list[Path]]:
    """Audio files by speaker: LibriSpeech's file names, else the first folder below `data`.

    Args:
        data: a LibriSpeech tree or SPEAKER/... folders.

    Returns:
        speakers and their files, both in a fixed order.

    Raises:
        BadCorpus: no folder, or no audio below it.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(data.rglob("*")) if data.is_dir() else []:
        if path.suffix.lower() not in _AUDIO:
            continue
        named = _LIBRISPEECH.match(path.stem)
        folders = path.relative_to(data).parts[:-1]
        if named or folders:
            found.setdefault(named[1] if named else folders[0], []).append(path)
    if not found:
        raise BadCorpus(
            "The data folder must hold recordings in one folder for each speaker.",
            f"{data} {'without them' if data.is_dir() else 'is no folder'}",
            "Point --data at a LibriSpeech tree or at a folder of SPEAKER/*.wav.",
        )
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def read_speaker_list(argument: str) -> list[str]:
    """Speakers of FILE:NAME, a list in a JSON object of lists.

    Raises:
        UsageError: the argument has no colon, or the file has no such list.
    """
    file, _, name = argument.rpartition(":")
    try:
        return [str(speaker) for speaker in json.loads(Path(file).read_text())[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "--split takes FILE:NAME, a list of speakers in a JSON file.",
            f"{argument!r} ({type(error).__name__})",
            "For example --split ../shared/data/librispeech/splits.json:dev_test.",
        ) from error


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
        data: a LibriSpeech tree or SPEAKER/... folders.
        speakers: whose, in this order; None for all.
        enrolment: recordings a voice is enrolled from, the first ones.
        tests: recordings that are converted, the next ones; the last ones are reference.
        most: stop at this many voices.

    Raises:
        BadCorpus: an unknown speaker, or fewer than two with enough recordings.
    """
    found = list_by_speaker(data)
    if unknown := [speaker for speaker in speakers or [] if speaker not in found]:
        raise BadCorpus(
            "Every speaker must be in the data folder.",
            f"no recordings of {unknown[0]!r} among {len(found)} speakers",
            "Check --speakers, --split and --data.",
        )
    voices: list[Voice] = []
    for speaker in speakers or found:
        paths = _usable(found[speaker])
        if len(paths) < enrolment + tests + MIN_REFERENCE:
            continue
        last = paths[enrolment + tests :][-MAX_REFERENCE:]
        voice = Voice(
            speaker,
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
