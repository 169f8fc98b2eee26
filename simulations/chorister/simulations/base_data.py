"""The corpus that the base model learns from: which recordings, whose they are, and their cache.

Analysis is done once for each file and kept in a cache folder outside the repository, under a name
that holds the file's path, size and the version of the analysis.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadCorpus
from chorister.shared.types import FloatArray
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.simulations.corpus import open_corpus
from chorister.simulations.voice_change import change_speed

ANALYSIS_VERSION = "1"
_SPEAKER_FIRST = re.compile(r"\d+-")
_WORD = re.compile(r"[a-z']+")
_FASTER = " x "
_AUDIO = frozenset({".opus", ".flac", ".wav", ".ogg", ".mp3"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """Where the training speech lies, relative to the data folder.

    Attributes:
        split_file: JSON object of speaker lists.
        split: the list in it that may be trained on.
        speaker_folders: folders in LibriSpeech's form, SPEAKER/CHAPTER/*.opus or SPEAKER-*.opus
            with numbers for speakers, VCTK trees, or one folder for each speaker.
        file_folders: folders of files whose speakers are unknown: each file is a speaker.
        speeds: each makes another speaker of every one in `speaker_folders`, played that much
            faster: pitch and formants move together, as with a smaller head.
    """

    split_file: str
    split: str
    speaker_folders: tuple[str, ...]
    file_folders: tuple[str, ...]
    speeds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Utterance:
    """One file of the corpus.

    Attributes:
        speaker: label, unique over all folders.
        path: the audio file.
        folder: the corpus folder that it came from.
        transcript: what is said, where the corpus tells.
        speed: 1 as recorded; else a synthetic speaker, the file played that much faster.
    """

    speaker: str
    path: Path
    folder: str
    transcript: str | None
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One utterance as the training reads it.

    Attributes:
        samples: shape (T,), int16, 16 kHz, T a multiple of 160.
        f0_hz: shape (T // 160,), float32, 0 where unvoiced.
        phones: shape (T // 160,), int8, index into `align.PHONES`; -1 where unknown.
    """

    samples: NDArray[np.int16]
    f0_hz: FloatArray
    phones: NDArray[np.int8]


def _transcripts(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            found[name] = text.lower()
    return found


def _audio_files(data: Path, folder: str) -> Iterator[Path]:
    root = data / folder
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in _AUDIO)
    if not files:
        raise BadCorpus(
            "Each folder of the recipe must hold audio files.",
            f"none in {root}",
            "Point --data at the folder that holds the corpora, or correct the recipe.",
        )
    yield from files


def _spoken(
    data: Path, folder: str, allowed: frozenset[str]
) -> Iterator[tuple[str, Path, str | None]]:
    """Speaker, file and words of each recording of the allowed speakers."""
    files = list(_audio_files(data, folder))
    if all(_SPEAKER_FIRST.match(path.stem) for path in files):
        texts = _transcripts(data / folder)
        for path in files:
            speaker = path.stem.split("-")[0]
            if speaker in allowed:
                yield speaker, path, texts.get(path.stem)
        return
    for one in open_corpus(data / folder).speakers:
        if one.name in allowed:
            for utterance in one.utterances:
                text = utterance.transcript()
                # LibriSpeech's transcripts are words alone; others have punctuation.
                words = None if text is None else " ".join(_WORD.findall(text.lower()))
                yield one.name, utterance.path, words


def list_utterances(data: Path, corpus: Corpus) -> tuple[Utterance, ...]:
    """Every file that may be trained on, in a fixed order.

    Args:
        data: the folder that the corpus's paths are relative to.
        corpus: which folders and which split.

    Raises:
        BadCorpus: the split or a folder is missing or empty.
    """
    split_path = data / corpus.split_file
    try:
        allowed = frozenset(json.loads(split_path.read_text(encoding="utf-8"))[corpus.split])
    except (OSError, ValueError, KeyError) as error:
        raise BadCorpus(
            "The recipe's split must be a list of speakers in a JSON file.",
            f"{split_path}: {type(error).__name__}: {error}",
            "Correct [data] split_file or split in the recipe, or --data.",
        ) from error
    found: list[Utterance] = []
    for folder in corpus.speaker_folders:
        for speaker, path, text in _spoken(data, folder, allowed):
            found.append(Utterance(speaker, path, folder, text))
            for speed in corpus.speeds:
                found.append(Utterance(f"{speaker}{_FASTER}{speed}", path, folder, text, speed))
    for folder in corpus.file_folders:
        for path in _audio_files(data, folder):
            found.append(Utterance(f"{folder}/{path.stem}", path, folder, None))
    return tuple(found)


def known_speakers(data: Path, corpus: Corpus) -> frozenset[str]:
    """Labels of the speakers of `speaker_folders`; files of unknown speakers have none.

    Raises:
        BadCorpus: as `list_utterances`.
    """
    listed = list_utterances(data, corpus)
    folders = frozenset(corpus.speaker_folders)
    return frozenset(u.speaker for u in listed if u.speed == 1.0 and u.folder in folders)


def cache_name(utterance: Utterance, kind: str) -> str:
    """File name of a cached result: changes when the audio file or the analysis does."""
    size = utterance.path.stat().st_size
    path = utterance.path
    named = path.stem.startswith(utterance.speaker.split(_FASTER)[0])
    # Where names do not tell the speakers apart, the folders do.
    name = (
        path.name if named or utterance.speaker.endswith(path.stem) else "/".join(path.parts[-3:])
    )
    key = f"{ANALYSIS_VERSION}\0{kind}\0{utterance.folder}/{name}\0{size}"
    if utterance.speed != 1.0:
        key += f"\0{utterance.speed}"
    return hashlib.sha256(key.encode()).hexdigest()[:24] + f".{kind}.npz"


def write_cache(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Writes arrays so that an interrupted run leaves no half-written file under `path`."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def prepare(utterance: Utterance, cache: Path) -> Prepared:
    """Samples, F0 and (where `chorister align` made them) phones, from the cache or computed.

    Raises:
        BadAudio: the file cannot be used, by the rules that every recording has to pass.
    """
    path = cache / cache_name(utterance, "f0")
    if path.exists():
        with np.load(path) as stored:
            samples, f0_hz = stored["samples"], stored["f0_hz"]
    else:
        spoken = change_speed(load_recording(utterance.path).samples, utterance.speed)
        samples = np.clip(np.rint(32768.0 * spoken), -32768, 32767).astype(np.int16)
        samples = samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES]
        f0_hz = estimate_f0(samples.astype(np.float32) / 32768.0)
        write_cache(path, samples=samples, f0_hz=f0_hz)
    return Prepared(samples, f0_hz, _phones(utterance, cache, len(f0_hz)))


def _phones(utterance: Utterance, cache: Path, frames: int) -> NDArray[np.int8]:
    path = cache / cache_name(replace(utterance, speed=1.0), "phones")
    labels = np.full(frames, -1, np.int8)
    if path.exists():
        with np.load(path) as stored:
            known = stored["phones"]
        # Frame t of a faster copy is centred where this frame of the file is.
        places = ((np.arange(frames) + 0.5) * utterance.speed).astype(np.int64)
        inside = places < len(known)
        labels[inside] = known[places[inside]]
    return labels
