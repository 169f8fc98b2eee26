"""Files in and files out: what is refused, what is kept, what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client import convert, convert_cli
from chorister.client.controls import Controls
from chorister.client.convert import convert_file, convert_recording
from chorister.client.voice import Voice
from chorister.shared.cli import main as chorister
from chorister.shared.errors import BadAudio, BadWeights, UsageError
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.loudness import loudness_lufs

RATE = 16_000
Speech = Callable[[float, int], FloatArray]
CONTROLS = Controls(pitch_st=2.0, formant=1.1, rate=1.3, energy_db=-3.0, breathiness=0.2)


@pytest.fixture(scope="module")
def voice(voice_path: Path) -> Voice:
    return Voice(voice_path.read_bytes(), "v")


@pytest.fixture
def source(tmp_path: Path, speech: Speech) -> Path:
    path = tmp_path / "me.wav"
    soundfile.write(path, speech(2.0, 1), RATE)
    return path


def only(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_missing_source_leaves_nothing(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match="no file"):
        convert_file(voice, tmp_path / "none.wav", tmp_path / "out.wav")
    assert only(tmp_path)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.full(RATE, np.nan, np.float32), "finite"),
        (np.full(1000, 0.1, np.float32), "at least"),
    ],
)
def test_a_useless_source_leaves_nothing(
    voice: Voice, tmp_path: Path, samples: FloatArray, expected: str
) -> None:
    path = tmp_path / "me.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(BadAudio, match=expected):
        convert_file(voice, path, tmp_path / "out.wav")
    assert only(tmp_path, "me.wav")


def test_an_existing_result_is_kept(voice: Voice, source: Path) -> None:
    out = source.with_name("out.wav")
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="not overwritten"):
        convert_file(voice, source, out)
    assert out.read_bytes() == b"precious"
    convert_file(voice, source, out, overwrite=True)
    assert soundfile.info(out).frames == 2 * RATE


@pytest.mark.parametrize(
    ("name", "expected"), [("out.txt", "endings"), ("none/out.wav", "folder"), ("out", "endings")]
)
def test_a_place_that_will_not_do_is_refused_first(
    voice: Voice, tmp_path: Path, name: str, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        convert_file(voice, tmp_path / "not-even-read.wav", tmp_path / name)


def test_a_full_disk_leaves_nothing(
    voice: Voice, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> float:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write", full)
    with pytest.raises(UsageError, match="No space left"):
        convert_file(voice, source, source.with_name("out.wav"))
    assert only(source.parent, "me.wav")


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".opus"])
def test_every_format_is_written(voice: Voice, source: Path, ending: str) -> None:
    out = source.with_name("out" + ending)
    convert_file(voice, source, out)
    written, rate = soundfile.read(out)
    assert (rate, written.ndim) == (RATE, 1)
    assert abs(len(written) - 2 * RATE) <= 8
    assert only(source.parent, "me.wav", out.name)


@pytest.mark.parametrize("level", [0.003, 0.1, 1.0])
@pytest.mark.parametrize("ending", [".wav", ".opus"])
def test_the_result_is_as_loud_as_the_source_and_does_not_clip(
    voice: Voice, speech: Speech, tmp_path: Path, level: float, ending: str
) -> None:
    samples = speech(4.0, 2)
    samples *= np.float32(0.98 * level / np.abs(samples).max())
    soundfile.write(tmp_path / "me.wav", samples, RATE, subtype="FLOAT")
    out = tmp_path / f"out{ending}"
    done = convert_file(voice, tmp_path / "me.wav", out)
    written, _ = soundfile.read(out, dtype="float32")
    assert np.abs(written).max() < 1.0
    assert done.result_lufs == pytest.approx(done.wanted_lufs, abs=1.0)
    # What a codec then leaves out of the noise of an untrained voice is its own affair.
    if ending == ".wav":
        assert loudness_lufs(written) == pytest.approx(loudness_lufs(samples), abs=1.0)


def test_a_source_at_full_scale_is_matched_by_limiting(voice: Voice, speech: Speech) -> None:
    """Louder than the result could be without its peaks turned down."""
    samples = np.clip(speech(4.0, 2) * np.float32(9.0), -0.9, 0.9)
    made = convert_recording(voice, Recording(samples, "x"))
    assert np.abs(made).max() <= 0.98
    assert loudness_lufs(made) == pytest.approx(loudness_lufs(samples), abs=1.0)


@pytest.mark.parametrize("energy_db", [-12.0, 6.0])
def test_energy_is_in_decibels_above_the_source(
    voice: Voice, speech: Speech, energy_db: float
) -> None:
    samples = speech(4.0, 2) * np.float32(0.2)
    made = convert_recording(voice, Recording(samples, "x"), controls=Controls(energy_db=energy_db))
    assert loudness_lufs(made) - loudness_lufs(samples) == pytest.approx(energy_db, abs=0.3)


def test_more_energy_than_full_scale_holds_is_said(
    voice_path: Path, speech: Speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    soundfile.write(tmp_path / "me.wav", np.clip(6.0 * speech(2.0, 1), -0.9, 0.9), RATE)
    arguments = [str(tmp_path / "me.wav"), str(out), "--voice", str(voice_path), "--energy", "20"]
    assert convert_cli.main(arguments) == 0
    assert "quieter than asked" in capsys.readouterr().out
    written, _ = soundfile.read(out, dtype="float32")
    assert np.abs(written).max() < 1.0


@pytest.mark.parametrize("level", [1.0, 0.01])
@pytest.mark.parametrize("floor", [0.0, 1e-5, 3e-4])
def test_silence_stays_silent(voice: Voice, speech: Speech, level: float, floor: float) -> None:
    samples = np.concatenate([speech(2.0, 3), np.zeros(RATE, np.float32), speech(1.0, 4)])
    samples *= np.float32(level)
    room = np.random.default_rng(0).normal(0, floor * level, len(samples))
    samples += room.astype(np.float32)
    made = convert_recording(voice, Recording(samples, "x"))
    assert made.shape == samples.shape
    pause = slice(2 * RATE + 1600, 3 * RATE - 1600)
    before, after = (np.sqrt(np.square(x[pause]).mean()) for x in (samples, made))
    assert after <= 2.0 * before


@pytest.mark.parametrize("rate", [0.5, 0.77, 1.0, 2.0])
def test_the_rate_scales_the_length(voice: Voice, source: Path, rate: float) -> None:
    done = convert_file(voice, source, source.with_name("out.wav"), controls=Controls(rate=rate))
    assert soundfile.info(source.with_name("out.wav")).frames == np.ceil(2 * RATE / rate)
    assert done.seconds == pytest.approx(2.0 / rate, abs=1e-3)


def test_a_file_is_converted_as_a_recording_is(voice: Voice, source: Path) -> None:
    samples, _ = soundfile.read(source, dtype="float32")
    samples -= samples.mean()
    wanted = convert_recording(voice, Recording(samples, "x"), controls=CONTROLS)
    convert_file(voice, source, source.with_name("out.wav"), controls=CONTROLS)
    found, _ = soundfile.read(source.with_name("out.wav"), dtype="float32")
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_stereo_at_48_khz_with_an_offset(voice: Voice, speech: Speech, tmp_path: Path) -> None:
    wide = np.repeat(speech(1.0, 5), 3)
    soundfile.write(tmp_path / "me.flac", np.stack([wide, wide], 1) + 0.1, 48_000)
    done = convert_file(voice, tmp_path / "me.flac", tmp_path / "out.wav")
    assert done.seconds == pytest.approx(1.0, abs=0.01)
    written, _ = soundfile.read(tmp_path / "out.wav")
    assert abs(written.mean()) < 0.01


def test_the_command_writes_json_and_nothing_else(
    voice_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.with_name("out.wav")
    assert convert_cli.main([str(source), str(out), "--voice", str(voice_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == str(out)
    assert printed["voice"]["target"] == "somebody"
    assert abs(printed["result_lufs"] - printed["source_lufs"]) < 1.0


def test_the_command_is_quiet_when_told(
    voice_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.with_name("out.wav")
    assert convert_cli.main([str(source), str(out), "--voice", str(voice_path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_wrong_voice_is_named_before_anything_is_written(source: Path) -> None:
    out = source.with_name("out.wav")
    with pytest.raises(BadWeights, match=r"me\.wav"):
        convert_cli.main([str(source), str(out), "--voice", str(source)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--pitch", "25", "semitones"),
        ("--formant", "0", "formants"),
        ("--rate", "nan", "speed"),
        ("--energy", "21", "decibels"),
        ("--intonation", "-1", "intonation"),
        ("--breathiness", "1.1", "breathiness"),
    ],
)
def test_a_control_out_of_range_is_refused(
    voice_path: Path, source: Path, option: str, value: str, expected: str
) -> None:
    out = source.with_name("out.wav")
    with pytest.raises(UsageError, match=expected):
        convert_cli.main([str(source), str(out), "--voice", str(voice_path), option, value])
    assert not out.exists()


def test_mistakes_end_with_status_2(
    voice_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "none.wav"), str(tmp_path / "out.wav"), "--voice", str(voice_path)]
    assert chorister(["convert", *arguments]) == 2
    assert "no file" in capsys.readouterr().err


def test_converting_needs_no_torch() -> None:
    code = (
        "import sys, chorister.client.convert_cli; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'opacus')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
