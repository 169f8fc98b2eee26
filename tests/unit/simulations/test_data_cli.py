"""`chorister data` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared import console
from chorister.shared.errors import BadCorpus, UsageError
from chorister.simulations import data_cli, embedded
from chorister.simulations.fetch import Archive

RATE = 16_000


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    console._QUIET["on"] = False


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name, pitch_hz in (("anna", 210), ("bob", 110)):
        (tmp_path / "c" / name).mkdir(parents=True)
        for number in range(3):
            t = np.arange(2 * RATE) / RATE
            tone = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 20))
            samples = 0.1 * tone * (1 + np.sin(2 * np.pi * 3 * t)) + draw.normal(0, 0.003, len(t))
            soundfile.write(tmp_path / "c" / name / f"{number}.wav", samples, RATE)
    (tmp_path / "c" / "bob" / "2.wav").write_bytes(b"")
    return tmp_path / "c"


@pytest.mark.parametrize("argv", [[], ["fetch"], ["fetch", "everything"], ["describe"], ["sing"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        data_cli.main(argv)
    assert caught.value.code == 2 and "usage: chorister data" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        data_cli.main(["--help"])
    assert caught.value.code == 0 and "chorister data fetch dev-clean" in capsys.readouterr().out


def test_describe(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data_cli.main(["describe", str(corpus), "--separation"]) == 0
    out = capsys.readouterr().out
    assert "folders, 2 speakers, 5 recordings" in out
    assert "4 to 6 s a speaker" in out and "1 file(s) skipped" in out
    assert "closest pair anna and bob" in out


def test_describe_as_json(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data_cli.main(["describe", str(corpus), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["speakers"] == 2 and figures["seconds"] == 10.0
    assert [Path(one["file"]).name for one in figures["skipped"]] == ["2.wav"]


def test_describe_some_speakers(corpus: Path, tmp_path: Path) -> None:
    split = tmp_path / "s.json"
    split.write_text('{"one": ["anna"], "both": ["anna", "bob"]}')
    assert data_cli.main(["describe", str(corpus), "--speakers", str(split), "both"]) == 0
    with pytest.raises(BadCorpus, match="1 speaker"):
        data_cli.main(["describe", str(corpus), "--speakers", str(split), "one"])


def test_fetch_tells_licence_and_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fetch(name: str, archive: Archive, to: Path, base_url: str | None) -> Path:
        asked.append((name, archive.file, to, base_url))
        return to / name

    monkeypatch.setattr(data_cli, "fetch_corpus", fetch)
    argv = ["fetch", "dev-clean", "--to", str(tmp_path), "--base-url", "https://mirror.example/x"]
    assert data_cli.main(argv) == 0
    assert asked == [("dev-clean", "dev-clean.tar.gz", tmp_path, "https://mirror.example/x")]
    out = capsys.readouterr().out
    assert "CC BY 4.0" in out and f"--data {tmp_path / 'dev-clean'}" in out


@pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs the extra 'embedded'")
def test_synthesise_prints_the_separation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedded, "VOICES", dict(list(embedded.VOICES.items())[:2]))
    monkeypatch.setattr(embedded, "SENTENCES", embedded.SENTENCES[:2])
    assert data_cli.main(["synthesise", str(tmp_path / "out"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["separation"]["speakers"] == 2 and figures["with_transcript"] == 4
    (tmp_path / "out" / "corpus.json").unlink()
    with pytest.raises(UsageError, match="new or empty"):
        data_cli.main(["synthesise", str(tmp_path / "out")])
