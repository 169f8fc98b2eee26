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
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile

from chorister.client.calibration import Calibration
from chorister.client.controls import NEUTRAL, Controls
from chorister.client.level import LOOK_AHEAD_SAMPLES, PEAK, limit
from chorister.client.segments import SegmentConverter
from chorister.client.voice import SourceStatistics, Voice
from chorister.shared.errors import UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import stream_recording
from chorister.shared.voice.loudness import LoudnessMeter, loudness_lufs

if TYPE_CHECKING:
    from chorister.client.source import KnownSource

# What a codec makes of a peak may lie above it: those that lose something get more room, and still
# more, in so many attempts, where what they wrote passes full scale.
_LOSSY_PEAK = 0.8
_MORE_ROOM = 0.85
_MOST_ATTEMPTS = 4
FORMATS = {
    ".wav": ("WAV", "PCM_16", PEAK),
    ".flac": ("FLAC", "PCM_16", PEAK),
    ".ogg": ("OGG", "VORBIS", _LOSSY_PEAK),
    ".opus": ("OGG", "OPUS", _LOSSY_PEAK),
}
_BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
_SAMPLE_BYTES = 4
# Long enough context for the limiter that blocks meet without a seam.
_CONTEXT_SAMPLES = 4 * LOOK_AHEAD_SAMPLES
# Limited peaks cost loudness. That much is given back, in so many passes, until it is this near.
_MOST_PASSES = 6
_NEAR_LU = 0.1
_MOST_EXTRA_DB = 9.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done to a file.

    Attributes:
        seconds: length of the result.
        source_lufs: loudness of the source; minus infinity where it is too quiet to be measured.
        wanted_lufs: the loudness that the result should have: the source's and the energy asked.
        result_lufs: the loudness that it has.
        source_known: where the source speaker's statistics are from: 'enrolled'; 'calibrated' on
            two seconds of voiced speech; the 'whole file', which held less; or 'nothing' in it
            was voiced.
    """

    seconds: float
    source_lufs: float
    wanted_lufs: float
    result_lufs: float
    source_known: str


def convert_recording(
    voice: Voice,
    recording: Recording,
    *,
    controls: Controls = NEUTRAL,
    statistics: SourceStatistics | None = None,
) -> FloatArray:
    """Converts a recording that is in memory.

    Args:
        voice: whose voice it shall get.
        recording: the source.
        controls: what else to change.
        statistics: the source speaker's; None calibrates on the recording's beginning.

    Returns:
        shape (T,), float32, 16 kHz, as long as the source over the rate, as loud as the source plus
        the energy, at most 0.98 in magnitude.
    """
    source_lufs = loudness_lufs(recording.samples)
    if statistics is None:
        calibration = Calibration()
        statistics = calibration.feed(recording.samples) or calibration.finish()
    converter = SegmentConverter(
        voice, controls=controls, statistics=statistics, source_lufs=source_lufs
    )
    speech = np.concatenate([converter.feed(recording.samples), converter.finish()])
    gain = _gain(speech, loudness_lufs(speech), source_lufs, controls.energy_db, PEAK)
    return limit(speech * np.float32(gain))


def convert_file(
    voice: Voice,
    source: Path,
    destination: Path,
    *,
    controls: Controls = NEUTRAL,
    speaker: KnownSource | None = None,
    overwrite: bool = False,
    on_percent: Callable[[int], None] = lambda _: None,
) -> Conversion:
    """Converts a file of any length; the result appears whole or not at all.

    Args:
        voice: whose voice it shall get.
        source: any audio file, at least 0.3 s.
        destination: .wav, .flac, .ogg or .opus, 16 kHz mono.
        controls: what else to change.
        speaker: who speaks in it, as an enrolment knows them; None calibrates on the first two
            seconds of voiced speech.
        overwrite: whether a file that is already there may be replaced.
        on_percent: told how many more hundredths are done, for a progress bar.

    Raises:
        BadAudio: the source cannot be used (missing, damaged, silent, ...).
        UsageError: the destination cannot be written.
    """
    check_destination(destination, overwrite=overwrite)
    found = _survey(source, calibrated=speaker is None)
    source_lufs = found.lufs
    statistics = found.statistics if speaker is None else speaker.at(source_lufs)
    length = math.ceil(found.samples / controls.rate)
    with _temporary(destination, ".raw") as raw, _temporary(destination, ".part") as part:
        meter = LoudnessMeter()
        samples = shown = 0
        with raw.open("wb") as file:
            converter = SegmentConverter(
                voice, controls=controls, statistics=statistics, source_lufs=source_lufs
            )
            for speech in _converted(converter, source, found.mean):
                meter.add(speech)
                file.write(speech.tobytes())
                samples += len(speech)
                on_percent(100 * samples // length - shown)
                shown = 100 * samples // length
        made = _Stored(raw, samples)
        suffix = destination.suffix.lower()
        peak = FORMATS[suffix][2]
        for _ in range(_MOST_ATTEMPTS):
            gain = _gain(made, meter.lufs(), source_lufs, controls.energy_db, peak)
            result_lufs = _write(made, gain, peak, part, suffix)
            if peak == PEAK or _peak_of(part) < 1.0:
                break
            peak *= _MORE_ROOM
        part.replace(destination)
    wanted_lufs = source_lufs + controls.energy_db
    known = "enrolled" if speaker is not None else found.known
    return Conversion(samples / SAMPLE_RATE_HZ, source_lufs, wanted_lufs, result_lufs, known)


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


def file_loudness(source: Path) -> float:
    """Loudness of a file in LUFS; minus infinity where it is too quiet to be measured.

    Raises:
        BadAudio: as `audio.stream_recording`.
    """
    meter = LoudnessMeter()
    for block in stream_recording(source):
        meter.add(block)
    return meter.lufs()


class _Samples(Protocol):
    """Samples of which only stretches are held in memory; an array is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> FloatArray: ...


class _Stored:
    """Samples in a file. A memory map would do, but what was read of it counts as ours."""

    def __init__(self, path: Path, samples: int) -> None:
        self._path = path
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, stretch: slice, /) -> FloatArray:
        start, stop, _ = stretch.indices(self._samples)
        return np.fromfile(
            self._path, np.float32, max(stop - start, 0), offset=start * _SAMPLE_BYTES
        )


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is known of a file before it is converted."""

    mean: float
    samples: int
    lufs: float
    statistics: SourceStatistics | None
    known: str


def _survey(source: Path, *, calibrated: bool) -> _Survey:
    """Reads a file once; whatever is wrong with it comes out here."""
    meter, calibration = LoudnessMeter(), Calibration()
    total, count = 0.0, 0
    for block in stream_recording(source):
        meter.add(block)
        total += float(block.sum(dtype=np.float64))
        count += len(block)
        if calibrated:
            calibration.feed(block - np.float32(block.mean()))
    known = "calibrated" if calibration.statistics is not None else "whole file"
    statistics = calibration.finish()
    known = known if statistics is not None else "nothing"
    return _Survey(total / count, count, meter.lufs(), statistics, known)


def _converted(converter: SegmentConverter, source: Path, mean: float) -> Iterator[FloatArray]:
    for block in stream_recording(source):
        yield converter.feed(block - np.float32(mean))
    yield converter.finish()


def _gain(
    speech: _Samples, speech_lufs: float, source_lufs: float, energy_db: float, peak: float
) -> float:
    """Factor after which the limited speech is as loud as the source, plus the energy.

    Where source or result is too quiet to be measured, their levels are left as they are.
    """
    gain_db = energy_db
    if not (math.isfinite(source_lufs) and math.isfinite(speech_lufs)):
        return _factor(gain_db)
    gain_db += source_lufs - speech_lufs
    most_db = gain_db + _MOST_EXTRA_DB
    loudest = max(float(np.abs(block).max()) for block in _blocks(speech))
    for _ in range(_MOST_PASSES):
        if loudest * _factor(gain_db) <= peak:
            break
        meter = LoudnessMeter()
        for limited in _limited(speech, _factor(gain_db), peak):
            meter.add(limited)
        missing_db = source_lufs + energy_db - meter.lufs()
        if missing_db < _NEAR_LU or gain_db >= most_db:
            break
        gain_db = min(gain_db + missing_db, most_db)
    return _factor(gain_db)


def _factor(gain_db: float) -> float:
    return float(10.0 ** (gain_db / 20.0))


def _blocks(speech: _Samples) -> Iterator[FloatArray]:
    for start in range(0, len(speech), _BLOCK_SAMPLES):
        yield speech[start : start + _BLOCK_SAMPLES]


def _limited(speech: _Samples, gain: float, peak: float) -> Iterator[FloatArray]:
    """Speech at its final level, block by block."""
    for start in range(0, len(speech), _BLOCK_SAMPLES):
        begin = max(start - _CONTEXT_SAMPLES, 0)
        end = min(start + _BLOCK_SAMPLES, len(speech))
        stretch = np.array(speech[begin : min(end + _CONTEXT_SAMPLES, len(speech))])
        yield limit(stretch * np.float32(gain), peak)[start - begin : end - begin]


def _write(speech: _Samples, gain: float, peak: float, part: Path, suffix: str) -> float:
    """Encodes speech at its final level; returns the result's loudness."""
    kind, subtype, _ = FORMATS[suffix]
    meter = LoudnessMeter()
    with (
        part.open("wb") as file,
        soundfile.SoundFile(
            file, "w", SAMPLE_RATE_HZ, channels=1, format=kind, subtype=subtype
        ) as out,
    ):
        for limited in _limited(speech, gain, peak):
            meter.add(limited)
            out.write(limited)
    return meter.lufs()


def _peak_of(path: Path) -> float:
    """Largest magnitude in a file as a player decodes it."""
    blocks = soundfile.blocks(str(path), _BLOCK_SAMPLES, dtype="float32")
    return max((float(np.abs(block).max()) for block in blocks), default=0.0)


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
