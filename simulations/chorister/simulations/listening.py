"""Sound for a report: level-matched, inlined without loss, with a small picture of each."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio

LEVEL_DB = -24.0  # mean power of speech, relative to full scale
PEAK = 0.98
GATE_DB = 40.0
FFT_SAMPLES = 512
BANDS = 64
COLUMNS = 240
RANGE_DB = 60.0


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording as a page shows it.

    Attributes:
        audio: data URI of a FLAC file.
        picture: data URI of a PNG spectrogram, low frequencies below.
        duration_s: its length.
        top_khz: the highest frequency in the picture.
    """

    audio: str
    picture: str
    duration_s: float
    top_khz: float


def load_clips(files: Mapping[str, Path]) -> dict[str, Clip]:
    """Return clips of recordings that are to be compared, all at one level.

    The level is one for all of them, lower than `LEVEL_DB` if any of them would clip at it.

    Args:
        files: what each recording is, and where.

    Raises:
        BadAudio: a file cannot be read or holds no samples.
    """
    sounds = {name: _read(path) for name, path in files.items()}
    gains = {name: 10 ** (LEVEL_DB / 20) / speech_level(wav) for name, (wav, _) in sounds.items()}
    loudest = max(
        (float(np.abs(wav).max()) * gains[name] for name, (wav, _) in sounds.items()), default=0.0
    )
    common = min(1.0, PEAK / loudest) if loudest > 0 else 1.0
    return {name: _clip(wav * gains[name] * common, rate) for name, (wav, rate) in sounds.items()}


def speech_level(wav: NDArray[np.float64]) -> float:
    """Return the root mean square over the frames within 40 dB of the loudest; 1 for silence."""
    frame = 800
    padded = np.pad(wav, (0, -len(wav) % frame)).reshape(-1, frame)
    power = (padded**2).mean(axis=1)
    if power.max() <= 0:
        return 1.0
    return float(np.sqrt(power[power >= power.max() * 10 ** (-GATE_DB / 10)].mean()))


def spectrogram_png(wav: NDArray[np.float64]) -> bytes:
    """Return a picture of a sound: time to the right, 0 to half the sampling rate upwards."""
    hop = max(FFT_SAMPLES // 4, -(-len(wav) // COLUMNS))
    padded = np.pad(wav, (0, FFT_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES), axis=1))[:, 1:] ** 2
    bands = power.reshape(len(power), BANDS, -1).mean(axis=2)
    level = 10 * np.log10(bands + 1e-12)
    shade = np.clip((level - level.max() + RANGE_DB) / RANGE_DB, 0, 1)
    return _png(np.round(shade.T[::-1] * 255).astype(np.uint8))


def log_mel_png(log_mel: NDArray[np.float32]) -> bytes:
    """Return a picture of a log-mel, shape (F, bands): time to the right, bands upwards."""
    level = 20.0 / np.log(10.0) * log_mel.astype(np.float64)
    shade = np.clip((level - level.max() + RANGE_DB) / RANGE_DB, 0, 1)
    return _png(np.round(shade.T[::-1] * 255).astype(np.uint8))


def _read(path: Path) -> tuple[NDArray[np.float64], int]:
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise BadAudio(
            "A sample in the run folder is a sound file.",
            f"{path.name}: {error}",
            "Run the simulation again.",
        ) from None
    wav = samples.mean(axis=1)
    if len(wav) == 0 or not np.isfinite(wav).all():
        raise BadAudio(
            "A sample in the run folder holds finite samples.",
            f"{path.name} without",
            "Run the simulation again.",
        )
    return wav, int(rate)


def _clip(wav: NDArray[np.float64], rate: int) -> Clip:
    flac = io.BytesIO()
    soundfile.write(flac, wav, rate, format="FLAC", subtype="PCM_16")
    return Clip(
        audio=_data_uri("audio/flac", flac.getvalue()),
        picture=_data_uri("image/png", spectrogram_png(wav)),
        duration_s=len(wav) / rate,
        top_khz=rate / 2000,
    )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _png(shades: NDArray[np.uint8]) -> bytes:
    """Return an indexed-colour PNG (ISO/IEC 15948) from paper white to deep ink."""
    height, width = shades.shape
    ramp = np.linspace(0, 1, 256)[:, None]
    stops = np.array([[250, 250, 247], [150, 190, 196], [31, 111, 120], [16, 42, 54]], float)
    palette = np.stack([np.interp(ramp[:, 0], [0, 0.4, 0.75, 1], stops[:, c]) for c in range(3)], 1)
    rows = b"".join(b"\x00" + row.tobytes() for row in shades)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
