"""What a recogniser hears in many utterances: phones and words, in processes of their own.

Recognising takes longer than converting, so it runs beside it. Both recognisers are pocketsphinx's
(optional): free phones, and words by its own English language model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context

import numpy as np

from chorister.shared.types import FloatArray
from chorister.shared.voice.loudness import match_level
from chorister.shared.voice.phones import SPEECH_LUFS, PhoneRecogniser

_VARIANT = re.compile(r"\(\d+\)$")
_NOT_WORD = re.compile(r"[^a-z' ]+")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in an utterance.

    Attributes:
        phones: without pauses.
        words: in lower case; None where words were not asked for.
    """

    phones: list[str]
    words: list[str] | None


class WordRecogniser:
    """English words, the same for the same samples."""

    def recognise(self, samples: FloatArray) -> list[str]:
        """Words of an utterance.

        Args:
            samples: shape (T,), float32, 16 kHz; the level is matched first.
        """
        import pocketsphinx

        # A narrower search than its default: half the time, and the same for every system.
        decoder = pocketsphinx.Decoder(maxhmmpf=3000, maxwpf=5, pl_window=10, loglevel="FATAL")
        levelled = np.clip(match_level(samples, SPEECH_LUFS), -1.0, 1.0)
        decoder.start_utt()
        decoder.process_raw((levelled * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return [] if found is None else words_of(_VARIANT.sub("", found.hypstr))


def words_of(text: str) -> list[str]:
    """A transcript's words in lower case, without punctuation."""
    return _NOT_WORD.sub(" ", text.lower()).split()


def can_hear() -> bool:
    """Whether pocketsphinx is installed."""
    return find_spec("pocketsphinx") is not None


@cache
def _recognisers() -> tuple[PhoneRecogniser, WordRecogniser]:
    return PhoneRecogniser(), WordRecogniser()


def hear(samples: FloatArray, *, words: bool) -> Heard:
    """Recognise an utterance in this process.

    Args:
        samples: shape (T,), float32, 16 kHz.
        words: also the words, which takes four times as long as the phones.
    """
    phones_by, words_by = _recognisers()
    return Heard(phones_by.recognise(samples), words_by.recognise(samples) if words else None)


class Listeners:
    """Processes that recognise utterances in the order in which they come."""

    def __init__(self, pool: ProcessPoolExecutor | None, *, words: bool) -> None:
        self._pool = pool
        self._words = words

    def hear(self, samples: FloatArray) -> Future[Heard]:
        """Ask for an utterance of shape (T,) at 16 kHz to be recognised."""
        if self._pool is not None:
            return self._pool.submit(hear, samples, words=self._words)
        done: Future[Heard] = Future()
        done.set_result(hear(samples, words=self._words))
        return done


@contextmanager
def listeners(jobs: int, *, words: bool) -> Iterator[Listeners]:
    """Open recognisers for the length of a block.

    Args:
        jobs: processes beside this one; 0 recognises in this one.
        words: whether words are wanted, or phones alone.
    """
    if jobs == 0:
        yield Listeners(None, words=words)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield Listeners(pool, words=words)
        finally:
            pool.shutdown(cancel_futures=True)
