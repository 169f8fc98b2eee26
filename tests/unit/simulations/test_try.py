"""The newcomer's first command: what it says without a demo, and what it writes with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from chorister.shared.errors import BadAudio, BadWeights, UsageError
from chorister.shared.types import FloatArray
from chorister.simulations import try_cli

RATE = 16_000


@pytest.fixture
def run(tmp_path: Path, voice_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    shutil.copy(voice_path, folder / "voice.onnx")
    return folder


@pytest.fixture
def me(tmp_path: Path, speech: Callable[[float, int], FloatArray]) -> Path:
    path = tmp_path / "me.wav"
    soundfile.write(path, speech(1.0, 1), RATE)
    return path


def test_without_a_demo_it_says_what_to_run(
    me: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="make demo"):
        try_cli.main([str(me)])


def test_an_unfinished_run_is_told_apart(me: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    with pytest.raises(UsageError, match="--resume"):
        try_cli.main([str(me), "--run", str(tmp_path / "half")])


def test_a_damaged_voice_is_refused(me: Path, run: Path) -> None:
    (run / "voice.onnx").write_bytes(b"half")
    with pytest.raises(BadWeights):
        try_cli.main([str(me), "--run", str(run)])


def test_a_missing_recording_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match="no file"):
        try_cli.main([str(tmp_path / "none.wav"), "--run", str(run)])


def test_the_result_lies_beside_the_recording_and_may_be_tried_again(me: Path, run: Path) -> None:
    for pitch in ("0", "3"):
        assert try_cli.main([str(me), "--run", str(run), "--quiet", "--pitch", pitch]) == 0
    assert soundfile.info(me.with_name("me.chorister.wav")).frames == RATE
    assert soundfile.read(me)[0].shape == (RATE,)


def test_a_named_result_is_not_overwritten(me: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="not overwritten"):
        try_cli.main([str(me), "--run", str(run), "--out", str(me)])


def test_it_tells_what_it_did(me: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = me.with_name("mine.flac")
    assert try_cli.main([str(me), "--run", str(run), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(out), "seconds": 1.0, "target": "somebody",
    }  # fmt: skip
