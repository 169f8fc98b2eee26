"""Recognise a folder of speech: LibriSpeech, VCTK, or one folder for each speaker.

Sources: LibriSpeech (Panayotov et al., ICASSP 2015, openslr.org/12); CSTR VCTK Corpus 0.92
(Yamagishi, Veaux and MacDonald 2019).
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chorister.shared.console import progress
from chorister.shared.errors import BadCorpus
from chorister.simulations.speakers import Skipped, Speaker, Utterance, screen_speaker

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})

_LIBRISPEECH = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+")
_VCTK_AUDIO = ("wav48_silence_trimmed", "wav48", "wav22", "wav16")
_VCTK_MICROPHONE = re.compile(r"_mic(?P<number>\d)$")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Speakers of one folder, in a fixed order. Nothing of them is decoded.

    Attributes:
        root: the folder.
        layout: "LibriSpeech", "VCTK" or "folders".
        speakers: by name, at least two.
    """

    root: Path
    layout: str
    speakers: tuple[Speaker, ...]

    def speaker(self, name: str) -> Speaker:
        """Return the speaker of that name.

        Raises:
            BadCorpus: there is none.
        """
        return _only(self.speakers, (name,), self.root)[0]


def open_corpus(
    root: str | Path, *, speakers: Sequence[str] | None = None, shift: str = "none"
) -> Corpus:
    """List the speakers and recordings of a folder by their names alone.

    Args:
        root: a LibriSpeech tree or its files at any depth, a VCTK tree, or SPEAKER/*.wav folders.
        speakers: take only these; None takes all.
        shift: what is applied to every recording when it is read (`shifts.SHIFT_KINDS`).

    Raises:
        BadCorpus: the folder is missing or empty, holds no audio, has one speaker only, or lacks
            one of `speakers`.
    """
    root = Path(root)
    files = _audio_files(root)
    if all(_LIBRISPEECH.fullmatch(path.stem) for path in files):
        layout, by_speaker = "LibriSpeech", _librispeech(files)
    elif audio := _vctk_audio(root):
        layout, by_speaker = "VCTK", _vctk(audio, files)
    else:
        layout, by_speaker = "folders", _folders(root, files)
    found = tuple(Speaker(name, tuple(by_speaker[name]), shift) for name in sorted(by_speaker))
    if speakers is not None:
        found = _only(found, speakers, root)
    if len(found) < 2:
        raise BadCorpus(
            "A federation needs at least two speakers, each in a folder of its own.",
            f"{len(found)} speaker(s) in {root}",
            "Point to the folder above, or add a folder of recordings for another speaker.",
        )
    return Corpus(root, layout, found)


def read_split(path: str | Path, name: str) -> tuple[str, ...]:
    """Read a list of speakers from a JSON file such as {"clients": ["3729", ...]}.

    Raises:
        BadCorpus: the file is missing, no JSON object, or has no list of that name.
    """
    try:
        splits = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCorpus(
            "A split file is a JSON object of speaker lists.",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            "Check the path and the file.",
        ) from error
    names = splits.get(name) if isinstance(splits, dict) else None
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        known = ", ".join(sorted(splits)) if isinstance(splits, dict) else "none"
        raise BadCorpus(
            "The split must be a list of speaker names in the file.",
            f"no list '{name}' in {path}",
            f"Lists in it: {known}.",
        )
    return tuple(names)


def screen_corpus(corpus: Corpus, skipped: Skipped) -> Corpus:
    """Leave out unusable files and the speakers that are left with too little.

    Args:
        corpus: best narrowed to the speakers that a run uses, for each file's header is read.
        skipped: takes what was left out, with reasons.

    Raises:
        BadCorpus: fewer than two speakers remain.
    """
    usable: list[Speaker] = []
    with progress("Checking recordings", len(corpus.speakers)) as step:
        for speaker in corpus.speakers:
            if (screened := screen_speaker(speaker, skipped)) is not None:
                usable.append(screened)
            step()
    if len(usable) < 2:
        raise BadCorpus(
            "A federation needs at least two speakers with usable recordings.",
            f"{len(usable)} of {len(corpus.speakers)} in {corpus.root}. {skipped.summary()}",
            "Replace the files that were skipped.",
        )
    return replace(corpus, speakers=tuple(usable))


def _audio_files(root: Path) -> list[Path]:
    """Every audio file below the folder, sorted; linked folders are followed once."""
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise BadCorpus("The data must be a folder.", f"{root} {kind}", "Check the path.")
    files: list[Path] = []
    visited: set[str] = set()
    empty = True
    for folder, below, names in os.walk(root, followlinks=True):
        empty = empty and not names
        real = os.path.realpath(folder)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        files += (
            Path(folder, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
        )
    if not files:
        raise BadCorpus(
            f"The data folder must hold audio ({', '.join(sorted(AUDIO_SUFFIXES))}).",
            f"{root} is empty" if empty else f"no audio file in {root} or below",
            "Point to a folder of speech, or fetch one: chorister data fetch dev-clean.",
        )
    return sorted(files)


def _librispeech(files: Iterable[Path]) -> dict[str, list[Utterance]]:
    speakers: defaultdict[str, list[Utterance]] = defaultdict(list)
    for path in files:
        speaker, chapter, _ = path.stem.split("-")
        transcript = path.with_name(f"{speaker}-{chapter}.trans.txt")
        speakers[speaker].append(Utterance(path, transcript if transcript.is_file() else None))
    return speakers


def _vctk_audio(root: Path) -> Path | None:
    """The audio folder of a VCTK tree whose root, or whose root's only folder, was named."""
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for name in _VCTK_AUDIO:
            if (base / name).is_dir():
                return base / name
    return None


def _vctk(audio: Path, files: Iterable[Path]) -> dict[str, list[Utterance]]:
    """The first microphone alone: a second recording of the same breath adds nothing."""
    speakers: defaultdict[str, dict[str, Utterance]] = defaultdict(dict)
    for path in files:
        if path.parent.parent != audio:
            continue
        sentence = _VCTK_MICROPHONE.sub("", path.stem)
        text = audio.parent / "txt" / path.parent.name / f"{sentence}.txt"
        utterance = Utterance(path, text if text.is_file() else None)
        speakers[path.parent.name].setdefault(sentence, utterance)
    return {name: list(sentences.values()) for name, sentences in speakers.items()}


def _folders(root: Path, files: Iterable[Path]) -> dict[str, list[Utterance]]:
    """The first folder below the root names the speaker; files in the root belong to nobody."""
    speakers: defaultdict[str, list[Utterance]] = defaultdict(list)
    for path in files:
        below = path.relative_to(root).parts
        if len(below) > 1:
            speakers[below[0]].append(Utterance(path, _text_beside(path)))
    return speakers


def _text_beside(path: Path) -> Path | None:
    own = path.with_suffix(".txt")
    if own.is_file():
        return own
    return next(iter(sorted(path.parent.glob("*.trans.txt"))), None)


def _only(speakers: tuple[Speaker, ...], names: Sequence[str], root: Path) -> tuple[Speaker, ...]:
    missing = sorted(set(names) - {speaker.name for speaker in speakers})
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise BadCorpus(
            "Every speaker that is asked for must be in the corpus.",
            f"{len(missing)} of {len(set(names))} missing in {root}: {some}",
            f"It has {len(speakers)} speakers, e.g. {', '.join(s.name for s in speakers[:3])}.",
        )
    return tuple(speaker for speaker in speakers if speaker.name in set(names))
