"""Words and digits of a statement, by whatever recogniser there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from chorister.client import recogniser
from chorister.client.recogniser import Vosk, Whisper, digits_in, find_recogniser
from chorister.client.recogniser_sphinx import Sphinx
from chorister.client.statement import find_template
from chorister.shared.errors import UsageError
from chorister.shared.voice.audio import load_recording

SPEECH = Path(__file__).parents[4] / "shared" / "data" / "librispeech" / "test-clean"
needs_speech = pytest.mark.skipif(not SPEECH.is_dir(), reason="../shared/data is missing")
ENGLISH, GERMAN, CHINESE = (find_template(locale).digits for locale in ("en", "de", "zh"))


@pytest.mark.parametrize(
    ("text", "words", "digits"),
    [
        ("the numbers are four seven one", ENGLISH, (4, 7, 1)),
        ("the numbers are 4, 7 and 1.", ENGLISH, (1,)),
        ("the numbers are 4 7 1.", ENGLISH, (4, 7, 1)),
        ("the numbers are 471.", ENGLISH, (4, 7, 1)),
        ("i have one voice", ENGLISH, ()),
        ("die zahlen sind null fünf drei", GERMAN, (0, 5, 3)),
        ("数字是四七一", CHINESE, (4, 7, 1)),
        ("数字是 4 7 一", CHINESE, (4, 7, 1)),
        ("", ENGLISH, ()),
    ],
)
def test_digits_at_the_end_are_read_as_words_or_figures(
    text: str, words: tuple[str, ...], digits: tuple[int, ...]
) -> None:
    assert digits_in(text, words) == digits


def test_english_is_heard_out_of_the_box_and_other_languages_are_not() -> None:
    found = find_recogniser("en")
    assert found is not None
    assert found.name == "pocketsphinx en-us"
    assert find_recogniser("de") is None


@pytest.mark.parametrize("choice", ["sphinx", "whisper:/none", "vosk:", "siri"])
def test_a_recogniser_that_is_not_there_is_not_replaced_by_silence(choice: str) -> None:
    with pytest.raises(UsageError, match="whisper:FOLDER"):
        find_recogniser("de", choice)


def test_faster_whisper_reads_a_model_on_this_machine_and_fetches_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    class Model:
        def __init__(self, path: str, **options: object) -> None:
            asked.update(options, path=path)

        def transcribe(self, samples: object, **options: object) -> tuple[list[object], None]:
            asked.update(options)
            words = [
                SimpleNamespace(word=word, start=float(at))
                for at, word in enumerate((" Die", " Zahlen", " sind", " 4", " 7."))
            ]
            found = [
                SimpleNamespace(text=" Die Zahlen sind 4", words=words[:4]),
                SimpleNamespace(text=" 7.", words=words[4:]),
            ]
            return found, None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    monkeypatch.setattr(recogniser, "find_spec", lambda name: name == "faster_whisper")
    found = find_recogniser("de", f"whisper:{tmp_path}")
    assert isinstance(found, Whisper)
    heard = found.hear(np.zeros(16_000, np.float32), ("die", "zahlen"), GERMAN)
    assert (heard.text.split(), heard.digits) == (["die", "zahlen", "sind", "4", "7."], (4, 7))
    assert (asked["local_files_only"], asked["language"]) == (True, "de")
    assert heard.digits_from_s == 3.0


def test_vosk_gets_16_bit_speech(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got: list[bytes] = []

    class Kaldi:
        def __init__(self, model: object, rate_hz: int) -> None:
            assert rate_hz == 16_000

        def SetWords(self, wanted: bool) -> None:
            assert wanted

        def AcceptWaveform(self, data: bytes) -> None:
            got.append(data)

        def FinalResult(self) -> str:
            words = ["die", "zahlen", "sind", "drei", "eins"]
            result = [{"word": word, "start": at / 2.0} for at, word in enumerate(words)]
            return json.dumps({"text": " ".join(words), "result": result})

    vosk = SimpleNamespace(SetLogLevel=lambda level: None, KaldiRecognizer=Kaldi, Model=str)
    monkeypatch.setitem(sys.modules, "vosk", vosk)
    monkeypatch.setattr(recogniser, "find_spec", lambda name: name == "vosk")
    found = find_recogniser("de", f"vosk:{tmp_path}")
    assert isinstance(found, Vosk)
    heard = found.hear(np.full(100, 2.0, np.float32), (), GERMAN)
    assert (heard.digits, heard.digits_from_s) == ((3, 1), 1.5)
    assert np.frombuffer(got[0], np.int16).tolist() == [32767] * 100


def test_silence_and_noise_say_nothing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000).astype(np.float32)
    for samples in (np.zeros(100, np.float32), noise):
        heard = Sphinx().hear(samples, ("allow", "voice"), ENGLISH)
        assert "voice" not in heard.text
        assert len(heard.digits) < 6


@needs_speech
def test_real_speech_is_heard_as_what_it_says_and_not_as_something_else() -> None:
    recording = load_recording(next(SPEECH.glob("5142/*/5142-33396-0002.*")))
    transcript = next(SPEECH.glob("5142/*/5142-33396.trans.txt")).read_text()
    said = dict(line.lower().split(" ", 1) for line in transcript.splitlines())
    own, other = said["5142-33396-0002"].split(), said["5142-33396-0068"].split()
    assert _share(Sphinx().hear(recording.samples, own, ENGLISH).text, own) > 0.8
    assert _share(Sphinx().hear(recording.samples, other, ENGLISH).text, other) < 0.3


def _share(text: str, words: list[str]) -> float:
    long = [word for word in words if len(word) > 3]
    return sum(word in text.split() for word in long) / len(long)
