"""Sound from a microphone, prompt by prompt: a level while it runs, and another take if wanted."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import soxr

from chorister.client.quality import Quality, measure_quality
from chorister.shared.errors import BadAudio, UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording

PROMPTS = Path(__file__).with_name("prompts.toml")
BLOCK_S = 0.1
LONGEST_TAKE_S = 90.0
_SILENT_DBFS = -80.0
_METER_FLOOR_DBFS = -60.0
_METER_WIDTH = 30


class AudioSource(Protocol):
    """Where sound comes from, block by block.

    Attributes:
        rate_hz: sampling rate of the blocks.
    """

    rate_hz: int

    def __enter__(self) -> Self:
        """Start to listen."""

    def __exit__(self, *details: object) -> None:
        """Stop to listen."""

    def read(self) -> FloatArray:
        """Return the next block, shape (T,), mono, about 0.1 s; empty at the end of the sound."""


class Desk(Protocol):
    """The person who reads the prompts: shown what to say, asked whether a take is good."""

    def ready(self, number: int, count: int, prompt: str) -> None:
        """Show a prompt, and return when the person is about to read it."""

    def level(self, dbfs: float) -> None:
        """Show how loud it is now."""

    def stopped(self) -> bool:
        """Return whether the person has finished reading."""

    def keep(self, quality: Quality) -> bool:
        """Show the figures of a take, and return whether it is kept; False takes it again."""


@dataclass(frozen=True, slots=True)
class Session:
    """What was recorded.

    Attributes:
        takes: the kept take of each prompt, in their order.
        repeated: how many takes were made again.
    """

    takes: tuple[Recording, ...]
    repeated: int


def record_prompts(
    prompts: Sequence[str],
    open_source: Callable[[], AbstractContextManager[AudioSource]],
    desk: Desk,
    *,
    silero: bool | None = None,
) -> Session:
    """Record one take for each prompt, again as often as the person wants.

    Args:
        prompts: what to read.
        open_source: opens the microphone, once a take.
        desk: the person.
        silero: as in `voice_activity.speech_frames`.

    Raises:
        BadAudio: the microphone gives no sound at all.
    """
    takes: list[Recording] = []
    repeated = 0
    for number, prompt in enumerate(prompts, start=1):
        while True:
            desk.ready(number, len(prompts), prompt)
            with open_source() as source:
                take = record_take(source, desk, f"take {number:02d}")
            if desk.keep(measure_quality(take, silero=silero)):
                break
            repeated += 1
        takes.append(take)
    return Session(tuple(takes), repeated)


def record_take(
    source: AudioSource, desk: Desk, name: str, *, most_s: float = LONGEST_TAKE_S
) -> Recording:
    """Record until the person has finished, the sound ends, or it has lasted too long.

    Args:
        source: open microphone.
        desk: who sees the level and says when to stop.
        name: of the recording.
        most_s: longest take.

    Raises:
        BadAudio: not a sound came: the microphone is muted or forbidden.
    """
    resampler = soxr.ResampleStream(source.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    parts: list[FloatArray] = []
    seconds = 0.0
    while seconds < most_s:
        block = source.read()
        if not len(block):
            break
        seconds += len(block) / source.rate_hz
        desk.level(_level_dbfs(block))
        parts.append(resampler.resample_chunk(np.ascontiguousarray(block, np.float32)))
        if desk.stopped():
            break
    parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts)
    if not len(samples) or _level_dbfs(samples - samples.mean()) < _SILENT_DBFS:
        raise BadAudio(
            "A microphone gives sound.",
            f"{seconds:.1f} s of silence",
            "Unmute it, allow its use, or choose another with --device (--devices lists them).",
        )
    samples = samples - np.float32(samples.mean(dtype=np.float64))
    return Recording(samples.astype(np.float32), name)


def meter(dbfs: float) -> str:
    """Return a level as a bar: full at 0 dB of full scale, empty at -60."""
    share = np.clip(1.0 - dbfs / _METER_FLOOR_DBFS, 0.0, 1.0)
    filled = round(float(share) * _METER_WIDTH)
    warning = "  too loud" if dbfs > -1.0 else ""
    return f"[{'#' * filled}{'.' * (_METER_WIDTH - filled)}] {max(dbfs, -99.0):4.0f} dB{warning}"


@cache
def reading_prompts(locale: str) -> tuple[str, ...]:
    """Return the sentences to read in a locale; English where it has none."""
    known = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    return tuple(known.get(locale, known["en"]))


class Microphone:
    """A microphone through sounddevice (PortAudio), an optional package.

    Args:
        device: its number or a part of its name; None takes the system's choice.

    Raises:
        UsageError: sounddevice is not installed, or there is no such microphone.
    """

    def __init__(self, device: str | None = None) -> None:
        sound = _sounddevice()
        chosen = int(device) if device is not None and device.isdigit() else device
        try:
            found = sound.query_devices(chosen, "input")
            self.rate_hz = int(found["default_samplerate"])
            self._stream: Any = sound.InputStream(
                samplerate=self.rate_hz, device=chosen, channels=1, dtype="float32"
            )
        except (ValueError, sound.PortAudioError) as error:
            raise UsageError(
                "A microphone can be opened.",
                str(error).splitlines()[0],
                "Connect one, or choose with --device; or name recordings instead of --record.",
            ) from None

    def __enter__(self) -> Microphone:
        """Start to listen."""
        self._stream.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Stop to listen."""
        self._stream.close()

    def read(self) -> FloatArray:
        """Return the next 0.1 s, shape (T,)."""
        block, _ = self._stream.read(round(BLOCK_S * self.rate_hz))
        mono: FloatArray = np.asarray(block, np.float32).reshape(-1)
        return mono


def list_microphones() -> list[str]:
    """Return the microphones of this machine, each as 'number: name'.

    Raises:
        UsageError: sounddevice is not installed.
    """
    found = _sounddevice().query_devices()
    return [f"{i}: {one['name']}" for i, one in enumerate(found) if one["max_input_channels"]]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        # OSError: the package is there, the system's PortAudio library is not.
        raise UsageError(
            "Recording needs sounddevice and PortAudio.",
            str(error),
            "pip install 'chorister[live]' (on Linux also the package libportaudio2), or "
            "record with any other program and name the files.",
        ) from None
    return sounddevice


def _level_dbfs(samples: FloatArray) -> float:
    return 10.0 * float(np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))
