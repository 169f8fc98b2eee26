"""The sound card: microphone and speaker through PortAudio, an optional package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from chorister.shared.errors import UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES


@dataclass(frozen=True, slots=True)
class Devices:
    """Which devices to use, by number or part of the name; None for the system's own."""

    input: str | None = None
    output: str | None = None


class Sound:
    """A running pair of microphone and speaker.

    Attributes:
        latency_ms: what the sound card itself adds, as it says.
        dropped: chunks that were lost because they came too late.
        failure: what went wrong while converting; the sound has stopped then.
    """

    def __init__(self) -> None:
        self.latency_ms = 0.0
        self.dropped = 0
        self.failure: Exception | None = None


@contextmanager
def open_sound(
    convert: Callable[[FloatArray], FloatArray], chunk_frames: int, devices: Devices
) -> Iterator[Sound]:
    """Runs microphone and speaker as long as the context lasts.

    Args:
        convert: called with every chunk, shape (chunk_frames * 160,), and gives as many samples.
        chunk_frames: frames of 10 ms in a chunk.
        devices: which to use.

    Raises:
        UsageError: the package is not installed, or there is no such device.
    """
    sounddevice = _sounddevice()
    sound = Sound()

    def callback(heard: Any, spoken: Any, _frames: int, _time: Any, status: Any) -> None:
        if status:
            sound.dropped += 1
        try:
            spoken[:, 0] = convert(np.array(heard[:, 0], np.float32))
        except Exception as error:
            # PortAudio's thread would print it and go on: the command shall end with it.
            sound.failure = error
            raise sounddevice.CallbackAbort from error

    try:
        stream = sounddevice.Stream(
            samplerate=SAMPLE_RATE_HZ,
            blocksize=chunk_frames * HOP_SAMPLES,
            device=(_device(devices.input), _device(devices.output)),
            channels=1,
            dtype="float32",
            latency="low",
            callback=callback,
        )
        with stream:
            sound.latency_ms = 1000.0 * sum(stream.latency)
            yield sound
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UsageError(
            "Live conversion needs a microphone and a speaker at 16 kHz.",
            str(error).splitlines()[0][:200],
            "Check the devices that `python -m sounddevice` lists, or use --file IN OUT.",
        ) from error


def _device(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdecimal() else name


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise UsageError(
            "Live conversion needs the package sounddevice and PortAudio.",
            f"{type(error).__name__}: {error}",
            "Install `chorister[live]` and libportaudio2, or use --file IN OUT.",
        ) from error
    return sounddevice
