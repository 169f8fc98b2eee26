"""Reads the corpus into memory for training: analysis, statistics and speaker vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.progress import track

from chorister.shared.console import complain, say
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.types import FloatArray
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.speaker import SPEAKER_SHA256, load_speaker_encoder
from chorister.simulations.base_batches import Batches, Speech, statistics_of
from chorister.simulations.base_data import (
    Corpus,
    Prepared,
    Utterance,
    cache_name,
    list_utterances,
    prepare,
    write_cache,
)
from chorister.simulations.ge2e import GE2E_FRAMES, ge2e_mel, load_ge2e

Namer = Literal["speaker", "ge2e"]
_SHORTEST_FRAMES = 32


def _ge2e_windows() -> Callable[[FloatArray], FloatArray]:
    encoder = load_ge2e()

    def windows(samples: FloatArray) -> FloatArray:
        mel = ge2e_mel(samples)
        mel = np.pad(mel, ((0, max(GE2E_FRAMES - len(mel), 0)), (0, 0)))
        starts = range(0, len(mel) - GE2E_FRAMES + 1, GE2E_FRAMES)
        stacked = np.stack([mel[start : start + GE2E_FRAMES] for start in starts])
        with torch.inference_mode():
            return np.asarray(encoder(torch.from_numpy(stacked)).numpy(), np.float32)

    return windows


def _own_windows() -> Callable[[FloatArray], FloatArray]:
    encoder = load_speaker_encoder()
    return lambda samples: encoder.embed_windows(log_mel(samples))


def _vectors_of(utterances: tuple[Utterance, ...], cache: Path, namer: Namer) -> list[FloatArray]:
    """Vectors of each utterance's windows, from the cache or computed."""
    kind: str = namer
    make = _ge2e_windows
    if namer == "speaker":
        # Another encoder's vectors must not be taken for this one's.
        kind, make = f"speaker-{SPEAKER_SHA256[:12]}", _own_windows
    windows: Callable[[FloatArray], FloatArray] | None = None
    found = []
    for utterance in track(utterances, description="speaker vectors", transient=True):
        path = cache / cache_name(utterance, kind)
        if not path.exists():
            windows = windows or make()
            samples = prepare(utterance, cache).samples.astype(np.float32) / 32768.0
            write_cache(path, vectors=windows(samples))
        with np.load(path) as stored:
            found.append(stored["vectors"])
    return found


def _usable(utterances: tuple[Utterance, ...], cache: Path) -> list[tuple[Utterance, Prepared]]:
    """What can be trained on; the rest is left out, and said."""
    found: list[tuple[Utterance, Prepared]] = []
    refused: list[BadAudio] = []
    short = 0
    for utterance in track(utterances, description="analysing", transient=True):
        try:
            ready = prepare(utterance, cache)
        except BadAudio as error:
            refused.append(error)
            continue
        if len(ready.f0_hz) < _SHORTEST_FRAMES:
            short += 1
            continue
        found.append((utterance, ready))
    if refused:
        complain(f"left out {len(refused)} of {len(utterances)} files, the first one: {refused[0]}")
    if short:
        say(f"left out {short} files shorter than {_SHORTEST_FRAMES * 10} ms")
    return found


def load_batches(
    data: Path,
    corpus: Corpus,
    cache: Path,
    *,
    weights: dict[str, float],
    synthetic_weight: float = 1.0,
    seed: int,
    namer: Namer,
    with_teacher: bool = False,
) -> Batches:
    """Everything that training draws from.

    Args:
        data: the folder that the corpus's paths are relative to.
        corpus: what to read.
        cache: folder of computed features, made if missing.
        weights: how often a second of a folder is drawn, by folder; 1 where not named.
        synthetic_weight: the same for synthetic speakers, relative to the originals.
        seed: of the data order.
        namer: which encoder makes the speaker vectors.
        with_teacher: whether GE2E's centroids are needed as well.

    Raises:
        BadCorpus: nothing to train on.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = _usable(list_utterances(data, corpus), cache)
    utterances = tuple(utterance for utterance, _ in found)
    speakers = {name: i for i, name in enumerate(sorted({u.speaker for u in utterances}))}
    if len(speakers) < 2:
        raise BadCorpus(
            "Training needs at least two speakers.",
            f"{len(speakers)} with usable recordings in {data}",
            "Add speakers to the split or folders to the recipe.",
        )
    speech: list[Speech] = []
    vectors: list[list[FloatArray]] = [[] for _ in speakers]
    teachers: list[list[FloatArray]] = [[] for _ in speakers]
    rows = _vectors_of(utterances, cache, namer)
    teacher_rows = _vectors_of(utterances, cache, "ge2e") if with_teacher else rows
    for (utterance, ready), own, teacher in zip(
        track(found, description="loading", transient=True), rows, teacher_rows, strict=True
    ):
        mel = log_mel(ready.samples.astype(np.float32) / 32768.0)
        speaker = speakers[utterance.speaker]
        vectors[speaker].append(own)
        teachers[speaker].append(teacher)
        speech.append(
            Speech(
                speaker,
                ready.samples,
                mel.astype(np.float16),
                ready.f0_hz,
                ready.phones,
                statistics_of(mel),
                weights.get(utterance.folder, 1.0)
                * (1.0 if utterance.speed == 1.0 else synthetic_weight),
            )
        )
    return Batches(
        speech,
        [np.concatenate(own) for own in vectors],
        [np.concatenate(own) for own in teachers] if with_teacher else None,
        seed,
    )
