"""Files from outside: what must be refused first, then what must come back."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio, UsageError
from chorister.shared.voice.audio import load_recording, save_recording
from chorister.shared.voice.containers import missing_bytes

RATE = 16_000
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def speech_like(seconds: float = 2.0, rate: int = RATE, seed: int = 1) -> NDArray[np.float32]:
    """A harmonic tone with syllables and a little noise: louder and softer, as speech is."""
    t = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * 140 * k * t + k) / k for k in range(1, 9))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t), 0, 1) ** 2
    noise = np.random.default_rng(seed).normal(0, 0.003, len(t))
    return (0.2 * tone * syllables + noise).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int = RATE, kind: str = "wav") -> Path:
    container, subtype = FORMATS[kind]
    soundfile.write(path, samples, rate, format=container, subtype=subtype)
    return path


def refused(path: Path, word: str, **options: float) -> BadAudio:
    with pytest.raises(BadAudio) as caught:
        load_recording(path, **options)
    message = str(caught.value)
    assert word in message and path.name in message
    assert caught.value.rule.endswith(".") and caught.value.advice.endswith(".")
    return caught.value


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "missing.wav", "no file")
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "folder.wav", "folder")


def test_refuses_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(bytes(range(256)) * 40)
    refused(path, "readable audio")
    path.write_bytes(b"")
    refused(path, "zero bytes")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.55, 0.9])
def test_refuses_a_truncated_file(tmp_path: Path, kind: str, share: float) -> None:
    whole = write(tmp_path / f"whole.{kind}", speech_like(6), kind=kind).read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "truncated")


@pytest.mark.parametrize("length", [10, 40, 300])
def test_refuses_the_first_bytes_of_a_file(tmp_path: Path, length: int) -> None:
    for kind in ("wav", "flac", "opus"):
        whole = write(tmp_path / f"whole.{kind}", speech_like(2), kind=kind).read_bytes()
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(whole[:length])
        with pytest.raises(BadAudio):
            load_recording(path)


def test_accepts_a_wav_whose_length_was_never_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path / "streamed.wav", speech_like(1))
    whole = bytearray(path.read_bytes())
    at = whole.index(b"data") + 4
    whole[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(bytes(whole))
    assert missing_bytes(path) == 0
    assert load_recording(path).duration_s == pytest.approx(1.0, abs=0.01)


def test_refuses_zero_length_and_short(tmp_path: Path) -> None:
    refused(write(tmp_path / "none.wav", speech_like()[:0]), "at least")
    refused(write(tmp_path / "short.wav", speech_like(0.29)), "0.29 s")
    assert load_recording(write(tmp_path / "enough.wav", speech_like(0.31))).duration_s > 0.3


def test_refuses_eight_hours_by_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    frames = 8 * 3600 * RATE
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + 2 * frames) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
        + b"data" + struct.pack("<I", 2 * frames)
    )  # fmt: skip
    with path.open("r+b") as file:
        file.truncate(44 + 2 * frames)  # sparse: nothing is stored for the silence
    assert "8.0 h" in refused(path, "at most 900 s").found


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", speech_like(3))
    refused(path, "at most 2 s", max_s=2.0)
    assert load_recording(path, max_s=3.0).duration_s == 3.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(tmp_path: Path, value: float) -> None:
    samples = speech_like()
    samples[len(samples) // 2] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    refused(path, "NaN or infinity")


def test_refuses_silence_and_a_mere_offset(tmp_path: Path) -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-4, RATE).astype(np.float32)
    refused(write(tmp_path / "zeros.wav", np.zeros(RATE, np.float32)), "silent")
    refused(write(tmp_path / "offset.wav", np.full(RATE, 0.5, np.float32) + quiet), "silent")


@pytest.mark.parametrize(("kind", "level"), [("wav", 1), ("wav", 0.4), ("opus", 1), ("mp3", 1)])
def test_refuses_heavy_clipping(tmp_path: Path, kind: str, level: float) -> None:
    clipped = np.float32(level) * np.clip(60 * speech_like(4), -1, 1)
    refused(write(tmp_path / f"a.{kind}", clipped, kind=kind), "clipped")


def test_accepts_full_scale_and_quiet_speech(tmp_path: Path) -> None:
    samples = speech_like()
    for peak in (0.999, 0.01):
        scaled = samples * np.float32(peak / np.abs(samples).max())
        assert load_recording(write(tmp_path / "a.wav", scaled)).duration_s == 2.0


def test_refuses_odd_rates_and_channel_counts(tmp_path: Path) -> None:
    refused(write(tmp_path / "slow.wav", speech_like(2, 4000), 4000), "4000 Hz")
    many = np.repeat(speech_like()[:, None], 12, axis=1)
    refused(write(tmp_path / "many.wav", many), "12 in")


def test_refuses_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", speech_like())
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        refused(path, "Permission denied")
    else:
        pytest.skip("this user may read everything")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_reads_every_format_and_rate(tmp_path: Path, kind: str, rate: int) -> None:
    samples = speech_like(2, rate)
    recording = load_recording(write(tmp_path / f"a.{kind}", samples, rate, kind))
    assert recording.name == f"a.{kind}"
    assert recording.samples.dtype == np.float32 and recording.samples.ndim == 1
    assert recording.duration_s == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(recording.samples))
    top_hz = np.argmax(spectrum) * RATE / len(recording.samples)
    assert top_hz == pytest.approx(140, abs=8)


def test_resampling_keeps_the_wave(tmp_path: Path) -> None:
    recording = load_recording(write(tmp_path / "a.wav", speech_like(12, 48_000), 48_000))
    direct = speech_like(12)
    assert len(recording.samples) == len(direct)
    inner = slice(1000, -1000)
    difference = recording.samples[inner] - direct[inner]
    assert np.sqrt(np.mean(difference**2)) < 0.1 * np.sqrt(np.mean(direct[inner] ** 2))


def test_stereo_becomes_the_mean_and_the_offset_goes(tmp_path: Path) -> None:
    left, right = speech_like(seed=1), np.float32(0.5) * speech_like(seed=2)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], axis=1) + 0.1, RATE, subtype="FLOAT")
    expected = (left + right) / 2
    np.testing.assert_allclose(
        load_recording(path).samples, expected - expected.mean(), rtol=0, atol=1e-5
    )


def test_reading_is_deterministic(tmp_path: Path) -> None:
    path = write(tmp_path / "a.opus", speech_like(3, 48_000), 48_000, "opus")
    np.testing.assert_array_equal(load_recording(path).samples, load_recording(path).samples)


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    samples = speech_like()
    samples -= samples.mean()
    save_recording(tmp_path / "a.wav", samples)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    np.testing.assert_allclose(
        load_recording(tmp_path / "a.wav").samples, samples, rtol=0, atol=1.0 / 32768
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_saving_limits_and_does_not_wrap(tmp_path: Path) -> None:
    save_recording(tmp_path / "a.wav", np.array([2.0, -2.0, 0.0], np.float32))
    stored, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert stored[0] >= 32766 and stored[1] <= -32767


def test_saving_refuses_before_it_touches_anything(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for bad in (np.array([np.nan], np.float32), np.zeros((2, 2), np.float32), np.zeros(0, "f4")):
        with pytest.raises(BadAudio):
            save_recording(path, bad)
    assert not list(tmp_path.iterdir())
    save_recording(path, speech_like())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="not overwritten"):
        save_recording(path, speech_like(1))
    assert path.read_bytes() == before
    save_recording(path, speech_like(1), overwrite=True)
    assert path.read_bytes() != before


def test_saving_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        save_recording(tmp_path / "nowhere" / "a.wav", speech_like())


def test_a_write_that_breaks_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    save_recording(path, speech_like())
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chorister.shared.voice.audio.os.fsync", full_disk)
    with pytest.raises(UsageError, match="No space left"):
        save_recording(path, speech_like(1), overwrite=True)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


def test_missing_bytes_counts_them(tmp_path: Path) -> None:
    for kind in ("wav", "opus"):
        path = write(tmp_path / f"a.{kind}", speech_like(1), kind=kind)
        assert missing_bytes(path) == 0
        copy = Path(shutil.copy(path, tmp_path / f"cut.{kind}"))
        with copy.open("r+b") as file:
            file.truncate(path.stat().st_size - 5)
        assert missing_bytes(copy) == 5
