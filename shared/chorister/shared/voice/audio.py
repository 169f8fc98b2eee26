"""Recordings in and out: every check that a file from outside has to pass is here.

A file is decoded in blocks through one streaming resampler, so what is held in memory is the
result at 16 kHz and never the file; the header is read before anything is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from chorister.shared.errors import BadAudio, UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.containers import missing_bytes

MIN_S = 0.3
MAX_S = 900.0
LOWEST_RATE_HZ = 8_000
HIGHEST_RATE_HZ = 384_000
MOST_CHANNELS = 8
SILENCE_DBFS = -60.0
CLIPPED_SHARE = 0.04

_BLOCK_S = 10
_LOUD_WINDOW_SAMPLES = 1_600
_UNKNOWN_FRAMES = 1 << 62
_SECOND_COUNT_SLACK = 0.02


def load_recording(path: str | Path, *, max_s: float = MAX_S) -> Recording:
    """Read a file of any rate and channel count as mono speech at 16 kHz.

    Channels are averaged, the rate is converted by soxr (HQ) and the mean is removed; the level
    stays as it is.

    Args:
        path: wav, flac, ogg (Vorbis or Opus), mp3 or whatever else libsndfile reads.
        max_s: longest duration that is accepted, in seconds, above `MIN_S`.

    Returns:
        the recording, named by the file's name without its folders.

    Raises:
        BadAudio: the file is missing, no regular file, unreadable, truncated, shorter than 0.3 s,
            longer than `max_s`, silent, heavily clipped, or holds NaN or infinity.
    """
    path = Path(path)
    samples = np.concatenate(list(stream_recording(path, max_s=max_s)))
    samples -= np.float32(samples.mean(dtype=np.float64))
    return Recording(samples, path.name)


def stream_recording(path: str | Path, *, max_s: float = np.inf) -> Iterator[FloatArray]:
    """Read a file as `load_recording` does, in blocks and with constant memory; keep the mean.

    Args:
        path: as in `load_recording`.
        max_s: longest duration that is accepted, in seconds.

    Yields:
        blocks of shape (T,), float32, 16 kHz, of about ten seconds.

    Raises:
        BadAudio: as `load_recording`; what only the whole file shows (truncation, silence,
            clipping) after the last block.
    """
    path = Path(path)
    header = _header(path)
    _check_length(path, _declared_s(header), max_s)
    seen = _Seen()
    resampler = soxr.ResampleStream(header.samplerate, SAMPLE_RATE_HZ, 1, dtype="float32")
    loudest_db = -np.inf
    for block in _decode(path, header.samplerate):
        seen.add(path, block)
        _check_length(path, max(seen.frames / header.samplerate, MIN_S), max_s)
        samples = resampler.resample_chunk(block.mean(axis=1, dtype=np.float32))
        if len(samples):
            loudest_db = max(loudest_db, _loudest_db(samples))
            yield samples
    samples = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if len(samples):
        loudest_db = max(loudest_db, _loudest_db(samples))
        yield samples
    _check_complete(path, header, seen.frames)
    _check_length(path, seen.frames / header.samplerate, max_s)
    if loudest_db < SILENCE_DBFS:
        raise BadAudio(
            f"A recording's loudest 0.1 s must reach {SILENCE_DBFS:.0f} dB of full scale.",
            f"{loudest_db:.0f} dB in {path}, which is silent",
            "Check the microphone and its input level, and record it again.",
        )
    if seen.clipped_share() > CLIPPED_SHARE:
        raise BadAudio(
            f"At most {CLIPPED_SHARE:.0%} of a recording's samples may sit at its ceiling.",
            f"{seen.clipped_share():.0%} in {path}, which is heavily clipped",
            "Record it again with a lower input level.",
        )


def probe_recording(path: str | Path, *, max_s: float = MAX_S) -> float:
    """Check what can be known of a recording without decoding it.

    Args:
        path: as in `load_recording`.
        max_s: as in `load_recording`.

    Returns:
        its duration in seconds by its header (an estimate for mp3).

    Raises:
        BadAudio: the header alone shows that `load_recording` would refuse the file.
    """
    path = Path(path)
    declared_s = _declared_s(_header(path))
    _check_length(path, declared_s, max_s)
    return declared_s


def save_recording(path: str | Path, samples: FloatArray, *, overwrite: bool = False) -> None:
    """Write mono speech at 16 kHz as a 16-bit wav, whole or not at all.

    Args:
        path: where to write; its folder must exist.
        samples: shape (T,), finite; what is beyond [-1, 1] is limited to it.
        overwrite: whether a file that is already there may be replaced.

    Raises:
        BadAudio: `samples` is empty, not one-dimensional or not finite.
        UsageError: the file exists already, or it cannot be written (folder missing, disk full).
    """
    path = Path(path)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise BadAudio(
            "Only finite mono samples can be written.",
            f"an array of shape {samples.shape} for {path}",
            "This is a fault of the conversion that made them; report it with the input file.",
        )
    if path.exists() and not overwrite:
        raise UsageError(
            "An existing file is not overwritten.", str(path), "Choose another name or remove it."
        )
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            limited = np.clip(samples, -1.0, 1.0)
            soundfile.write(file, limited, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise UsageError(
            "The output file must be writable.",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            "Create the folder, free some space or choose another place.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


class _Seen:
    """Running figures over the decoded blocks, before they are mixed and resampled."""

    def __init__(self) -> None:
        self.frames = 0
        self._values = 0
        self._at_peak = 0
        self._near_full_scale = 0

    def add(self, path: Path, block: FloatArray) -> None:
        """Count one block of shape (T, C); refuse it when it is not finite."""
        if not np.isfinite(block).all():
            raise BadAudio(
                "A recording's samples must be finite.",
                f"NaN or infinity in {path}",
                "Export it again as 16-bit wav or flac.",
            )
        self.frames += len(block)
        self._values += block.size
        levels = np.abs(block)
        peak = float(levels.max())
        if peak > 0.01:
            self._at_peak += int((levels >= 0.999 * peak).sum())
        # A lossy codec bends the flat tops of a clipped wave, so they no longer share one level.
        self._near_full_scale += int((levels >= 0.95).sum())

    def clipped_share(self) -> float:
        """Share of samples at the ceiling, in [0, 1]."""
        return max(self._at_peak, self._near_full_scale) / max(self._values, 1)


def _header(path: Path) -> soundfile._SoundFileInfo:
    if not path.exists():
        raise BadAudio("The recording must exist.", f"no file {path}", "Check the path.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise BadAudio("A recording is one audio file.", f"{path} is {kind}", "Name a file in it.")
    try:
        if path.stat().st_size == 0:
            raise BadAudio(
                "A recording must hold audio.", f"{path} has zero bytes", "Record it again."
            )
        short_by = missing_bytes(path)
        header = soundfile.info(str(path))
    except OSError as error:
        raise BadAudio(
            "A recording must be readable.", f"{path}: {error.strerror}", "Check its permissions."
        ) from error
    except soundfile.SoundFileError as error:
        raise _undecodable(path, error) from error
    if short_by:
        raise _truncated(path, f"{short_by} bytes fewer than its header announces")
    if not LOWEST_RATE_HZ <= header.samplerate <= HIGHEST_RATE_HZ:
        raise BadAudio(
            f"The sampling rate must be {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz.",
            f"{header.samplerate} Hz in {path}",
            "Record at 16 kHz or more.",
        )
    if header.channels > MOST_CHANNELS:
        raise BadAudio(
            f"A recording has at most {MOST_CHANNELS} channels.",
            f"{header.channels} in {path}",
            "Export the channel with the voice alone.",
        )
    return header


def _declared_s(header: soundfile._SoundFileInfo) -> float:
    """Duration by the header; where the header leaves it open, the shortest that passes."""
    if header.frames >= _UNKNOWN_FRAMES:
        return MIN_S
    return float(header.frames / header.samplerate)


def _check_length(path: Path, length_s: float, max_s: float) -> None:
    if length_s < MIN_S:
        raise BadAudio(
            f"A recording must be at least {MIN_S} s long.",
            f"{length_s:.2f} s in {path}",
            "Record a whole sentence.",
        )
    if length_s > max_s:
        hours = f" ({length_s / 3600:.1f} h)" if length_s > 3600 else ""
        raise BadAudio(
            f"A recording must be at most {max_s:.0f} s long.",
            f"{length_s:.0f} s{hours} or more in {path}",
            "Cut it into shorter files.",
        )


def _check_complete(path: Path, header: soundfile._SoundFileInfo, frames: int) -> None:
    if header.frames >= _UNKNOWN_FRAMES:
        return
    # The count in an mp3 header is an estimate; in any other format it is exact.
    slack = _SECOND_COUNT_SLACK * header.frames if "MP3" in header.format else 0.0
    if frames < header.frames - slack:
        raise _truncated(path, f"{frames} of the {header.frames} sample frames of its header")


def _decode(path: Path, rate_hz: int) -> Iterator[FloatArray]:
    """Yield blocks of shape (T, C), float32, of at most ten seconds."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            while len(block := file.read(_BLOCK_S * rate_hz, dtype="float32", always_2d=True)):
                yield block
    except soundfile.SoundFileError as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: soundfile.SoundFileError) -> BadAudio:
    reason = getattr(error, "error_string", str(error)).rstrip(".").removeprefix("Error : ")
    return BadAudio(
        "A recording must be readable audio (wav, flac, ogg, opus, mp3).",
        f"{path}: {reason}",
        "It is damaged, truncated or something else; export or download it again.",
    )


def _truncated(path: Path, found: str) -> BadAudio:
    return BadAudio(
        "A recording must be complete.",
        f"{path} is truncated: {found}",
        "Copy or download it again.",
    )


def _loudest_db(samples: FloatArray) -> float:
    """Level of the loudest 0.1 s about the mean, in dB of full scale."""
    samples = samples - samples.mean(dtype=np.float64)
    window = min(_LOUD_WINDOW_SAMPLES, len(samples))
    whole = len(samples) // window * window
    power = float(np.square(samples[:whole].reshape(-1, window), dtype=np.float64).mean(1).max())
    return 10.0 * float(np.log10(max(power, 1e-20)))
