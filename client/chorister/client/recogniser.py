"""Who hears the words of a statement: one protocol, and whatever recogniser the machine has.

A recogniser is told the fixed words of the sentence and the ten digit words of the language. It is
never told which digits were shown: it could only hear what it expects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chorister.shared.errors import UsageError
from chorister.shared.types import FloatArray

KINDS = ("sphinx", "whisper", "vosk")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood of a statement.

    Attributes:
        text: all words in lower case, separated by spaces.
        digits: the digits after the last other key word, each 0 to 9.
        digits_from_s: where in the recording they begin; None where the recogniser does not tell.
    """

    text: str
    digits: tuple[int, ...]
    digits_from_s: float | None = None

    def __repr__(self) -> str:
        return f"Heard({len(self.text.split())} words, {len(self.digits)} digits)"


class Recogniser(Protocol):
    """An offline speech recogniser."""

    name: str

    def hear(self, samples: FloatArray, words: Sequence[str], digit_words: Sequence[str]) -> Heard:
        """Return what is said in samples (T,), float32, 16 kHz.

        Args:
            samples: the statement.
            words: the words of the sentence without names and digits, lower case.
            digit_words: how zero to nine are said.
        """


def find_recogniser(locale: str, choice: str | None = None) -> Recogniser | None:
    """Return a recogniser for a locale, None if the machine has none for it.

    Args:
        locale: of the statement.
        choice: 'sphinx' (English only), 'whisper:FOLDER' or 'vosk:FOLDER' with a model on this
            machine; None takes what works without being told: pocketsphinx for English.

    Raises:
        UsageError: the choice is none of these, not installed, or not for this locale.
    """
    if choice is None:
        if locale == "en" and find_spec("pocketsphinx"):
            return _sphinx()
        return None
    kind, _, folder = choice.partition(":")
    if kind == "sphinx" and locale == "en" and find_spec("pocketsphinx"):
        return _sphinx()
    if kind == "whisper" and find_spec("faster_whisper") and Path(folder).is_dir():
        return Whisper(Path(folder), locale)
    if kind == "vosk" and find_spec("vosk") and Path(folder).is_dir():
        return Vosk(Path(folder))
    raise UsageError(
        "A recogniser is sphinx (English), whisper:FOLDER (faster-whisper) or vosk:FOLDER, "
        "installed, with its model on this machine.",
        f"'{choice}' for locale '{locale}'",
        "Install it with pip, download its model once, and name the model's folder.",
    )


def _sphinx() -> Recogniser:
    from chorister.client.recogniser_sphinx import Sphinx

    return Sphinx()


def digits_in(text: str, digit_words: Sequence[str]) -> tuple[int, ...]:
    """Return the digits at the end of a transcript: figures or words, and nothing between.

    Args:
        text: lower case.
        digit_words: how zero to nine are said.
    """
    numbers = {word: digit for digit, word in enumerate(digit_words)}
    numbers |= {str(digit): digit for digit in range(10)}
    if all(len(word) == 1 for word in digit_words):
        tokens = re.findall(r"\w", text)
    else:
        tokens = re.findall(r"\d|[^\W\d]+", text)
    found: list[int] = []
    for token in reversed(tokens):
        if token not in numbers:
            break
        found.append(numbers[token])
    return tuple(reversed(found))


def digits_begin_s(
    words: Sequence[tuple[str, float]], digits: Sequence[int], digit_words: Sequence[str]
) -> float | None:
    """Return where the digits at the end of a transcript begin, None where there are none.

    Args:
        words: of the transcript, lower case, each with its start in seconds.
        digits: as `digits_in` finds them.
        digit_words: how zero to nine are said.
    """
    found, begin_s = 0, None
    for word, start_s in reversed(words):
        if found >= len(digits):
            break
        found += len(digits_in(word, digit_words))
        begin_s = start_s
    return begin_s


class Whisper:
    """faster-whisper with a model that the user downloaded; nothing is fetched.

    Args:
        folder: of the model.
        locale: language of the speech.
    """

    def __init__(self, folder: Path, locale: str) -> None:
        import faster_whisper

        self.name = f"faster-whisper {folder.name}"
        self._locale = locale
        self._model: Any = faster_whisper.WhisperModel(
            str(folder), device="cpu", compute_type="int8", local_files_only=True
        )

    def hear(self, samples: FloatArray, words: Sequence[str], digit_words: Sequence[str]) -> Heard:
        """Return what is said; the words are not told to the model."""
        found, _ = self._model.transcribe(
            samples, language=self._locale, beam_size=5, word_timestamps=True
        )
        parts = list(found)
        text = " ".join(part.text for part in parts).lower()
        timed = [(one.word.lower(), one.start) for part in parts for one in part.words or ()]
        digits = digits_in(text, digit_words)
        return Heard(text, digits, digits_begin_s(timed, digits, digit_words))


class Vosk:
    """Vosk with a model that the user downloaded.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: Path) -> None:
        import vosk

        vosk.SetLogLevel(-1)
        self.name = f"vosk {folder.name}"
        self._make: Any = vosk.KaldiRecognizer
        self._model: Any = vosk.Model(str(folder))

    def hear(self, samples: FloatArray, words: Sequence[str], digit_words: Sequence[str]) -> Heard:
        """Return what is said; the words are not told to the model."""
        import json

        recogniser = self._make(self._model, 16_000)
        recogniser.SetWords(True)
        recogniser.AcceptWaveform((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
        found = json.loads(recogniser.FinalResult())
        text = str(found["text"]).lower()
        listed = found.get("result", ())
        timed = [(str(one["word"]).lower(), float(one["start"])) for one in listed]
        digits = digits_in(text, digit_words)
        return Heard(text, digits, digits_begin_s(timed, digits, digit_words))
