"""A recording in, the same words in another voice out: files of any length, with constant memory.

Loudness is the source's (ITU-R BS.1770), silence stays silent, peaks are held below full scale.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from chorister.client.level import LOOK_AHEAD_SAMPLES, limit
from chorister.client.segments import SegmentConverter
from chorister.client.voice import SourceStatistics, Voice
from chorister.shared.errors import UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import stream_recording
from chorister.shared.voice.loudness import LoudnessMeter, loudness_lufs

PITCH_LIMIT_ST = 24.0
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
_BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
# Long enough context for the limiter that blocks meet without a seam.
_CONTEXT_SAMPLES = 4 * LOOK_AHEAD_SAMPLES


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done to a file.

    Attributes:
        seconds: length of source and result.
        source_lufs: loudness of the source.
        result_lufs: loudness of the result.
    """

    seconds: float
    source_lufs: float
    result_lufs: float


def convert_recording(
    voice: Voice,
    recording: Recording,
    *,
    pitch_st: float = 0.0,
    statistics: SourceStatistics | None = None,
) -> FloatArray:
    """Converts a recording that is in memory.

    Args:
        voice: whose voice it shall get.
        recording: the source.
        pitch_st: semitones to move the pitch by, -24 to 24.
        statistics: the source speaker's; None takes them from the recording.

    Returns:
        shape (T,), float32, 16 kHz, as long and as loud as the source, at most 0.98 in magnitude.

    Raises:
        UsageError: the pitch is out of range.
    """
    check_pitch(pitch_st)
    converter = SegmentConverter(voice, pitch_st=pitch_st, statistics=statistics)
    speech = np.concatenate([converter.feed(recording.samples), converter.finish()])
    gain = _gain(loudness_lufs(recording.samples), loudness_lufs(speech))
    return limit(speech * np.float32(gain))


def convert_file(
    voice: Voice,
    source: Path,
    destination: Path,
    *,
    pitch_st: float = 0.0,
    overwrite: bool = False,
    on_percent: Callable[[int], None] = lambda _: None,
) -> Conversion:
    """Converts a file of any length; the result appears whole or not at all.

    Args:
        voice: whose voice it shall get.
        source: any audio file, at least 0.3 s.
        destination: .wav, .flac, .ogg or .opus, 16 kHz mono.
        pitch_st: semitones to move the pitch by, -24 to 24.
        overwrite: whether a file that is already there may be replaced.
        on_percent: told how many more hundredths are done, for a progress bar.

    Raises:
        BadAudio: the source cannot be used (missing, damaged, silent, ...).
        UsageError: the destination cannot be written, or the pitch is out of range.
    """
    check_pitch(pitch_st)
    check_destination(destination, overwrite=overwrite)
    mean, length, source_lufs = _survey(source)
    with _temporary(destination, ".raw") as raw, _temporary(destination, ".part") as part:
        meter = LoudnessMeter()
        samples = shown = 0
        with raw.open("wb") as file:
            for speech in _converted(voice, source, mean, pitch_st):
                meter.add(speech)
                file.write(speech.tobytes())
                samples += len(speech)
                on_percent(100 * samples // length - shown)
                shown = 100 * samples // length
        gain = _gain(source_lufs, meter.lufs())
        result_lufs = _write_limited(raw, samples, gain, part, destination.suffix.lower())
        part.replace(destination)
    return Conversion(samples / SAMPLE_RATE_HZ, source_lufs, result_lufs)


def check_pitch(pitch_st: float) -> None:
    """Return if the shift is one that can be spoken.

    Raises:
        UsageError: it is not.
    """
    if not abs(pitch_st) <= PITCH_LIMIT_ST:
        raise UsageError(
            f"The pitch moves by at most {PITCH_LIMIT_ST:.0f} semitones up or down.",
            f"{pitch_st}",
            "Choose a smaller shift; 12 is an octave.",
        )


def check_destination(destination: Path, *, overwrite: bool) -> None:
    """Return if a result can be written there, as far as can be seen before.

    Raises:
        UsageError: unknown format, missing folder, or an existing file that may not be replaced.
    """
    if destination.suffix.lower() not in FORMATS:
        raise UsageError(
            f"A result is written as {', '.join(FORMATS)}.",
            f"{destination.name}",
            "Give the output file one of these endings.",
        )
    if not destination.parent.is_dir():
        raise UsageError(
            "The output folder must exist.", f"no {destination.parent}", "Create it first."
        )
    if destination.exists() and not (overwrite and destination.is_file()):
        raise UsageError(
            "An existing file is not overwritten.",
            str(destination),
            "Choose another name or remove it.",
        )


def _survey(source: Path) -> tuple[float, int, float]:
    """Mean, samples and loudness of a file; whatever is wrong with it comes out here."""
    meter = LoudnessMeter()
    total, count = 0.0, 0
    for block in stream_recording(source):
        meter.add(block)
        total += float(block.sum(dtype=np.float64))
        count += len(block)
    return total / count, count, meter.lufs()


def _converted(voice: Voice, source: Path, mean: float, pitch_st: float) -> Iterator[FloatArray]:
    converter = SegmentConverter(voice, pitch_st=pitch_st)
    for block in stream_recording(source):
        yield converter.feed(block - np.float32(mean))
    yield converter.finish()


def _gain(source_lufs: float, speech_lufs: float) -> float:
    """Factor to the source's loudness; 1 where either is too quiet to be measured."""
    if not (math.isfinite(source_lufs) and math.isfinite(speech_lufs)):
        return 1.0
    return float(10.0 ** ((source_lufs - speech_lufs) / 20.0))


def _write_limited(raw: Path, samples: int, gain: float, part: Path, suffix: str) -> float:
    """Encodes the raw float32 file at its final level; returns the result's loudness."""
    kind, subtype = FORMATS[suffix]
    speech = np.memmap(raw, np.float32, "r", shape=(samples,))
    meter = LoudnessMeter()
    with (
        part.open("wb") as file,
        soundfile.SoundFile(
            file, "w", SAMPLE_RATE_HZ, channels=1, format=kind, subtype=subtype
        ) as out,
    ):
        for start in range(0, samples, _BLOCK_SAMPLES):
            begin = max(start - _CONTEXT_SAMPLES, 0)
            end = min(start + _BLOCK_SAMPLES, samples)
            stretch = np.array(speech[begin : min(end + _CONTEXT_SAMPLES, samples)])
            limited = limit(stretch * np.float32(gain))[start - begin : end - begin]
            meter.add(limited)
            out.write(limited)
    return meter.lufs()


@contextmanager
def _temporary(destination: Path, suffix: str) -> Iterator[Path]:
    """A file beside the destination that is gone afterwards, and disk errors as ours."""
    path = destination.with_name(f".{destination.name}.{os.getpid()}{suffix}")
    try:
        yield path
    except (OSError, soundfile.SoundFileError) as error:
        raise UsageError(
            "The output file must be writable.",
            f"{destination}: {getattr(error, 'strerror', None) or error}",
            "Create the folder, free some space or choose another place.",
        ) from error
    finally:
        path.unlink(missing_ok=True)
