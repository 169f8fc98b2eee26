"""The live path over a file: what a microphone would have heard, in the same chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import soundfile

from chorister.client.convert import FORMATS
from chorister.client.live import converted
from chorister.client.stream_voice import LiveVoice
from chorister.client.voice import SourceStatistics
from chorister.shared.errors import UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.audio import probe_recording, stream_recording


def convert_file_live(
    voice: LiveVoice,
    statistics: SourceStatistics,
    source: Path,
    destination: Path,
    *,
    chunk_frames: int = 1,
    pitch_st: float = 0.0,
    on_percent: Callable[[int], None] = lambda _: None,
) -> float:
    """Converts a file of any length as if it were spoken; the result appears whole or not at all.

    Args:
        voice: to speak with.
        statistics: of the source.
        source: any audio file, at least 0.3 s.
        destination: .wav, .flac, .ogg or .opus, 16 kHz mono; replaced if it exists.
        chunk_frames: frames of 10 ms that are taken at once.
        pitch_st: semitones to move the pitch by.
        on_percent: told how many more hundredths are done, for a progress bar.

    Returns:
        length of the result in seconds, that of the source.

    Raises:
        BadAudio: the source cannot be used.
        UsageError: the destination cannot be written.
    """
    expected = max(probe_recording(source, max_s=float("inf")) * SAMPLE_RATE_HZ, 1.0)
    part = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    kind, subtype, _ = FORMATS[destination.suffix.lower()]
    done = shown = 0
    speech = converted(
        voice, statistics, stream_recording(source), chunk_frames=chunk_frames, pitch_st=pitch_st
    )
    try:
        with (
            part.open("wb") as file,
            soundfile.SoundFile(
                file, "w", SAMPLE_RATE_HZ, channels=1, format=kind, subtype=subtype
            ) as out,
        ):
            for block in _gathered(speech):
                out.write(block)
                done += len(block)
                percent = min(int(100 * done / expected), 100)
                on_percent(percent - shown)
                shown = percent
        part.replace(destination)
    except (OSError, soundfile.SoundFileError) as error:
        raise UsageError(
            "The output file must be writable.",
            f"{destination}: {getattr(error, 'strerror', None) or error}",
            "Create the folder, free some space or choose another place.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return done / SAMPLE_RATE_HZ


def _gathered(blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
    """The same samples, without the empty blocks that a stream begins with."""
    return (block for block in blocks if len(block))
