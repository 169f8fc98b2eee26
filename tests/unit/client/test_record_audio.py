"""Enrolment by microphone, with a microphone that plays a file and a person who presses keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soxr

from chorister.client import enrol_cli, record_audio
from chorister.client.quality import Quality
from chorister.client.record_audio import (
    meter,
    reading_prompts,
    record_prompts,
    record_take,
)
from chorister.client.statement import templates
from chorister.shared.errors import BadAudio, ConsentRefused, UsageError
from chorister.shared.types import FloatArray
from chorister.shared.voice.base import save_base
from chorister.shared.voice.model import VoiceModel

Speech = Callable[[float, int], FloatArray]


class Playing:
    """A microphone that hears a recording."""

    def __init__(self, samples: FloatArray, rate_hz: int = 48_000) -> None:
        self.rate_hz = rate_hz
        self._left = soxr.resample(samples, 16_000, rate_hz).astype(np.float32)

    def __enter__(self) -> Playing:
        return self

    def __exit__(self, *details: object) -> None:
        self._left = np.zeros(0, np.float32)

    def read(self) -> FloatArray:
        block, self._left = np.split(self._left, [self.rate_hz // 10])
        return block


class Person:
    """Reads every prompt, keeps what she is told to keep, and stops after so many blocks."""

    def __init__(self, keeps: Iterator[bool], stop_after: int = 10_000) -> None:
        self.prompts: list[str] = []
        self.levels: list[float] = []
        self._keeps = keeps
        self._stop_after = stop_after

    def ready(self, number: int, count: int, prompt: str) -> None:
        self.prompts.append(prompt)
        self.levels.clear()

    def level(self, dbfs: float) -> None:
        self.levels.append(dbfs)

    def stopped(self) -> bool:
        return len(self.levels) >= self._stop_after

    def keep(self, quality: Quality) -> bool:
        assert quality.seconds > 0.0
        return next(self._keeps)


def test_a_take_is_the_speech_at_16_khz_with_a_level_for_each_block(speech: Speech) -> None:
    spoken = speech(3.0, 1)
    person = Person(iter([]))
    take = record_take(Playing(spoken), person, "take")
    assert len(take.samples) == pytest.approx(len(spoken), abs=2)
    middle = slice(8_000, 40_000)
    assert np.corrcoef(take.samples[middle], spoken[middle])[0, 1] > 0.99
    assert len(person.levels) == 30
    assert max(person.levels) < 0.0


def test_a_take_ends_when_the_person_has_finished_or_after_the_longest_time(
    speech: Speech,
) -> None:
    take = record_take(Playing(speech(3.0, 1)), Person(iter([]), stop_after=12), "take")
    assert take.duration_s == pytest.approx(1.2, abs=0.01)
    take = record_take(Playing(speech(3.0, 1)), Person(iter([])), "take", most_s=2.0)
    assert take.duration_s == pytest.approx(2.0, abs=0.11)


def test_every_prompt_is_read_again_as_often_as_the_person_wants(speech: Speech) -> None:
    person = Person(iter([True, False, False, True]))
    session = record_prompts(("one", "two"), lambda: Playing(speech(1.0, 1)), person, silero=False)
    assert person.prompts == ["one", "two", "two", "two"]
    assert (len(session.takes), session.repeated) == (2, 2)


@pytest.mark.parametrize("samples", [np.zeros(16_000, np.float32), np.zeros(0, np.float32)])
def test_a_muted_microphone_is_found_at_the_first_take(samples: FloatArray) -> None:
    with pytest.raises(BadAudio, match="Unmute it"):
        record_prompts(("one",), lambda: Playing(samples), Person(iter([])), silero=False)


def test_the_meter_shows_silence_speech_and_what_is_too_loud() -> None:
    assert "#" not in meter(-70.0)
    assert 10 < meter(-30.0).count("#") < 20
    assert meter(0.0).endswith("too loud")
    assert len({len(meter(level)) for level in (-70.0, -30.0, -5.0)}) == 1


@pytest.mark.parametrize("locale", sorted(templates()))
def test_there_is_something_to_read_in_every_language_of_the_statement(locale: str) -> None:
    assert len(set(reading_prompts(locale))) >= 12


def test_without_a_sound_system_the_advice_is_to_record_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UsageError, match="any other program"):
        record_audio.list_microphones()


@pytest.mark.usefixtures("quick_vault")
def test_the_command_asks_for_the_statement_last_and_stores_nothing_that_fails(
    speech: Speech,
    tmp_path: Path,
    passphrase_file: Path,
    small_model: VoiceModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def microphone(device: str | None) -> Iterator[Playing]:
        yield Playing(speech(2.0, 1))

    person = Person(iter([True] * 20))
    monkeypatch.setattr(record_audio, "Microphone", microphone)
    monkeypatch.setattr(enrol_cli, "Terminal", lambda: person)
    save_base(small_model, tmp_path / "base.safetensors")
    options = ["--name", "Anna", "--record", "--base", str(tmp_path / "base.safetensors")]
    with pytest.raises(ConsentRefused, match="statement: key words"):
        enrol_cli.main([*options, "--json"])
    # Its digits are good for minutes, and reading takes some of them.
    assert person.prompts[:-1] == list(reading_prompts("en"))
    assert "I, Anna, allow" in person.prompts[-1]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "failed  statement: digits" in captured.err
    entries = (tmp_path / "vault" / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in entries] == ["genesis", "refusal"]
