import base64
import io
import struct
import zlib

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadAudio
from chorister.simulations.listening import COLUMNS, PEAK, load_clips, spectrogram_png, speech_level

RATE = 16_000


def tone(hz=440.0, level=0.1, seconds=1.0):
    return level * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)


def saved(path, wav):
    soundfile.write(path, wav, RATE, subtype="FLOAT")
    return path


def heard(clip):
    wav, rate = soundfile.read(io.BytesIO(base64.b64decode(clip.audio.partition(",")[2])))
    assert rate == RATE
    return wav


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound"])
def test_what_is_no_sound_is_refused(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(BadAudio, match=r"a\.wav"):
        load_clips({"source": path})
    with pytest.raises(BadAudio):
        load_clips({"source": tmp_path / "missing.wav"})


@pytest.mark.parametrize("wav", [np.zeros(0), np.full(100, np.nan)])
def test_no_samples_and_samples_that_are_not_finite_are_refused(tmp_path, wav):
    with pytest.raises(BadAudio, match="finite samples"):
        load_clips({"source": saved(tmp_path / "a.wav", wav)})


def test_sounds_that_are_compared_have_one_level_and_do_not_clip(tmp_path):
    clicks = tone(level=0.001)
    clicks[::4000] = 0.9
    files = {
        "loud": saved(tmp_path / "loud.wav", tone(level=0.8)),
        "soft": saved(tmp_path / "soft.wav", tone(level=0.003)),
        "paused": saved(tmp_path / "paused.wav", np.concatenate([np.zeros(RATE), tone()])),
        "clicks": saved(tmp_path / "clicks.wav", clicks),
    }
    clips = load_clips(files)
    levels = [speech_level(heard(clips[name])) for name in files]
    assert levels == pytest.approx([levels[0]] * len(levels), rel=0.02)
    assert max(np.abs(heard(clip)).max() for clip in clips.values()) <= PEAK + 1e-3


def test_silence_stays_silent(tmp_path):
    clips = load_clips({"source": saved(tmp_path / "a.wav", np.zeros(RATE))})
    assert not heard(clips["source"]).any()


def test_stereo_is_mixed_down(tmp_path):
    clip = load_clips({"s": saved(tmp_path / "a.wav", np.stack([tone(), tone()], 1))})["s"]
    assert heard(clip).ndim == 1
    assert clip.duration_s == pytest.approx(1.0)


def pixels(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    at = png.index(b"IDAT")
    (size,) = struct.unpack(">I", png[at - 4 : at])
    raw = zlib.decompress(png[at + 4 : at + 4 + size])
    return np.frombuffer(raw, np.uint8).reshape(height, width + 1)[:, 1:]


@pytest.mark.parametrize("hz", [500.0, 4000.0, 7000.0])
def test_a_tone_is_dark_at_its_frequency(hz):
    picture = pixels(spectrogram_png(tone(hz)))
    band = len(picture) - 1 - int(picture[:, 5:-10].mean(axis=1).argmax())
    assert (band + 0.5) * RATE / 2 / len(picture) == pytest.approx(hz, abs=200)


@pytest.mark.parametrize("samples", [1, 100, 512, 16_000, 10 * 16_000])
def test_every_length_can_be_drawn(samples):
    assert pixels(spectrogram_png(np.ones(samples))).shape[1] <= COLUMNS + 4
