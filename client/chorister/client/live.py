"""Live conversion: blocks of any size in, as many samples out, calibration and levels included.

source -> calibration (once) -> steps of 10 ms -> level -> speech, `shift_samples` later
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from chorister.client.calibration import Calibration
from chorister.client.stream_level import HOLD_FRAMES, StreamLevel
from chorister.client.stream_voice import LiveStream, LiveVoice
from chorister.client.voice import SourceStatistics
from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES

_SPREAD_HOPS = 2 * HOLD_FRAMES + 1


class LiveConverter:
    """One source speaker through one live voice.

    Args:
        voice: to speak with.
        statistics: of the source; None listens for two seconds of voiced speech first, and is
            silent until then.
        pitch_st: semitones to move the pitch by.
    """

    def __init__(
        self,
        voice: LiveVoice,
        statistics: SourceStatistics | None = None,
        *,
        pitch_st: float = 0.0,
    ) -> None:
        self._voice = voice
        self._pitch_st = pitch_st
        self._shift = voice.latency(1).shift_samples
        self._calibration = Calibration()
        self._stream: LiveStream | None = None
        self._level = StreamLevel()
        self._source = np.zeros(self._shift + (HOLD_FRAMES + 1) * HOP_SAMPLES, np.float32)
        self._waiting = np.zeros(0, np.float32)
        if statistics is not None:
            self._start(statistics)

    @property
    def calibrated(self) -> bool:
        """Whether it speaks."""
        return self._stream is not None

    @property
    def voiced_s(self) -> float:
        """Voiced speech heard for the calibration, in seconds."""
        return self._calibration.voiced_s

    def _start(self, statistics: SourceStatistics) -> None:
        self._stream = LiveStream(self._voice, statistics, pitch_st=self._pitch_st)

    def feed(self, samples: FloatArray) -> FloatArray:
        """Takes a block of the source.

        Args:
            samples: shape (T,), float32, 16 kHz; values that are not finite count as 0.

        Returns:
            the hops that are ready, shape (T',), T' a multiple of 160: over all calls as many
            samples as were fed, rounded down to hops, `shift_samples` later; silence until it is
            calibrated.
        """
        joined = np.concatenate([self._waiting, np.nan_to_num(samples, posinf=0.0, neginf=0.0)])
        count = len(joined) // HOP_SAMPLES
        self._waiting = joined[count * HOP_SAMPLES :]
        hops = joined[: count * HOP_SAMPLES].reshape(count, HOP_SAMPLES)
        return np.concatenate([np.zeros(0, np.float32), *(self._hop(hop) for hop in hops)])

    def _hop(self, hop: FloatArray) -> FloatArray:
        if self._stream is None:
            statistics = self._calibration.feed(hop)
            if statistics is not None:
                self._start(statistics)
            return np.zeros(HOP_SAMPLES, np.float32)
        self._source = np.concatenate([self._source[HOP_SAMPLES:], hop])
        speech = self._stream.step(hop).samples
        return self._level.follow(self._source[: _SPREAD_HOPS * HOP_SAMPLES], speech)


def converted(
    voice: LiveVoice,
    statistics: SourceStatistics,
    blocks: Iterable[FloatArray],
    *,
    chunk_frames: int,
    pitch_st: float = 0.0,
) -> Iterator[FloatArray]:
    """A whole source through the live path, in chunks as a sound card would give them.

    Args:
        voice: to speak with.
        statistics: of the source.
        blocks: the source, in pieces of any size.
        chunk_frames: hops a chunk.
        pitch_st: semitones to move the pitch by.

    Yields:
        speech, sample for sample aligned with the source, as long as it altogether.
    """
    converter = LiveConverter(voice, statistics, pitch_st=pitch_st)
    skipped = voice.latency(chunk_frames).shift_samples
    missing = 0
    waiting = np.zeros(0, np.float32)
    size = chunk_frames * HOP_SAMPLES
    for block in blocks:
        missing += len(block)
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= size:
            speech = converter.feed(waiting[:size])
            waiting = waiting[size:]
            kept = speech[skipped:]
            skipped -= len(speech) - len(kept)
            missing -= len(kept)
            yield kept
    rest = skipped + missing
    flushed = np.concatenate([waiting, np.zeros(rest + size, np.float32)])
    yield converter.feed(flushed)[skipped : skipped + missing]
