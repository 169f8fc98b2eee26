"""`chorister align`: phone labels for transcribed speech, by pocketsphinx forced alignment.

The labels only help the content encoder to learn (an auxiliary loss); utterances without a
transcript, with a word that the dictionary lacks, or that cannot be read, are skipped and counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorister.shared.console import say
from chorister.shared.errors import BadAudio
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.simulations.base_data import (
    Utterance,
    cache_name,
    list_utterances,
    prepare,
    write_cache,
)
from chorister.simulations.base_recipe import read_recipe

SUMMARY = "label transcribed training speech with phones (pocketsphinx)"
PHONES = tuple(
    "SIL AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH "  # noqa: SIM905
    "UW V W Y Z ZH".split()
)
_INDEX = {name: index for index, name in enumerate(PHONES)}
_VOICELESS = frozenset({"P", "T", "K", "F", "TH"})
_SIBILANTS = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
# pocketsphinx centres its frame t at t * 160 + 205 samples, ours lie at t * 160 + 80.
_FRAME_OFFSET = 1


def _add_possessive(decoder: Any, word: str) -> bool:
    """Teaches the decoder `cat's` from `cat`; the dictionary has few possessives."""
    stem = word.removesuffix("'s")
    sound = decoder.lookup_word(stem) if stem != word else None
    if sound is None:
        return False
    last = sound.split()[-1]
    ending = "IH Z" if last in _SIBILANTS else "S" if last in _VOICELESS else "Z"
    decoder.add_word(word, f"{sound} {ending}", True)
    return True


def align(decoder: Any, samples: NDArray[np.int16], transcript: str) -> NDArray[np.int8] | None:
    """Phone of every frame.

    Args:
        decoder: a `pocketsphinx.Decoder` without a language model.
        samples: shape (T,), int16, 16 kHz.
        transcript: words in lower case.

    Returns:
        shape (T // 160,), int8, index into `PHONES`, -1 at the edges; None where a word is not in
        the dictionary or no alignment was found.
    """
    for word in transcript.split():
        if decoder.lookup_word(word) is None and not _add_possessive(decoder, word):
            return None
    audio = samples.tobytes()
    try:
        decoder.set_align_text(transcript)
        _decode(decoder, audio)
        decoder.set_alignment()
        _decode(decoder, audio)
        alignment = decoder.get_alignment()
    except RuntimeError:
        # What pocketsphinx raises where its beam lost every path.
        return None
    labels = np.full(len(samples) // HOP_SAMPLES, -1, np.int8)
    for word in alignment:
        for phone in word:
            start = phone.start + _FRAME_OFFSET
            labels[start : start + phone.duration] = _INDEX.get(phone.name, 0)
    return labels


def _decode(decoder: Any, audio: bytes) -> None:
    decoder.start_utt()
    try:
        decoder.process_raw(audio, full_utt=True)
    finally:
        decoder.end_utt()


def _align_all(utterances: tuple[Utterance, ...], cache: Path) -> tuple[int, int, int]:
    # Only this command needs the recogniser.
    from pocketsphinx import Decoder
    from rich.progress import track

    def fresh() -> Any:
        return Decoder(lm=None, loglevel="FATAL")

    decoder = fresh()
    done = skipped = without = 0
    for utterance in track(utterances, description="aligning", transient=True):
        if utterance.transcript is None:
            without += 1
            continue
        path = cache / cache_name(utterance, "phones")
        if not path.exists():
            try:
                samples = prepare(utterance, cache).samples
            except BadAudio:
                skipped += 1
                continue
            labels = align(decoder, samples, utterance.transcript)
            if labels is None:
                # A decoder carries its cepstral mean along, and does not outlive every failure.
                decoder = fresh()
                labels = align(decoder, samples, utterance.transcript)
            if labels is None:
                skipped += 1
                continue
            write_cache(path, phones=labels)
        done += 1
    return done, skipped, without


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister align",
        description=SUMMARY,
        epilog="example: chorister align recipe.toml --data ../shared/data --cache cache",
    )
    parser.add_argument("recipe", type=Path, help="the training recipe, for its [data] table")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the corpora")
    parser.add_argument("--cache", type=Path, required=True, help="folder for computed features")
    arguments = parser.parse_args(argv)
    listed = list_utterances(arguments.data, read_recipe(arguments.recipe).data.corpus())
    # A synthetic speaker's labels follow from the original's.
    utterances = tuple(one for one in listed if one.speed == 1.0)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    done, skipped, without = _align_all(utterances, arguments.cache)
    say(f"labelled {done} utterances; skipped {skipped}; {without} have no transcript")
    return 0
