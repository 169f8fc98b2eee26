"""Speech of any length through a voice, in overlapping segments, with constant memory.

Two neighbours share three seconds. They are joined, somewhere in the middle second, at the quietest
unvoiced frame that both agree on; noise and pulse phase run through, so they are nearly the same
there and a short cross-fade is not heard.
"""

from __future__ import annotations

import numpy as np

from chorister.client.level import silence_gate, speech_gain
from chorister.client.voice import Converted, SourceStatistics, Voice
from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES

SEGMENT_FRAMES = 2000
OVERLAP_FRAMES = 300
_MARGIN_FRAMES = 100
_FADE_FRAMES = 4
# A source's statistics are frozen once they rest on this much voiced speech (2 s).
_CALIBRATED_FRAMES = 200
# Stands for more power than any frame has: a voiced frame is a joint only if all are voiced.
_VOICED_COST = 1e6


class SegmentConverter:
    """Converts a stream: feed it blocks, and finish.

    Args:
        voice: to speak with.
        pitch_st: semitones to move the pitch by.
        statistics: the source speaker's; None takes them from the first segment that holds two
            seconds of voiced speech, and keeps them from there on.
    """

    def __init__(
        self, voice: Voice, *, pitch_st: float = 0.0, statistics: SourceStatistics | None = None
    ) -> None:
        self._voice = voice
        self._pitch_st = pitch_st
        self._statistics = statistics
        self._gain = 1.0
        self._waiting: list[FloatArray] = []
        self._waiting_samples = 0
        self._position = 0
        self._phase_frame = 0
        self._phase_cycles = 0.0
        self._held: FloatArray | None = None
        self._held_f0: FloatArray | None = None

    def feed(self, samples: FloatArray) -> FloatArray:
        """Takes more of the source.

        Args:
            samples: shape (T,), float32, 16 kHz.

        Returns:
            what is ready, shape (T',): sample for sample, over all calls, as long as the source.
        """
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        ready = []
        length = SEGMENT_FRAMES * HOP_SAMPLES
        # One sample more than a segment: the last one is then longer than the overlap.
        while self._waiting_samples > length:
            source = np.concatenate(self._waiting)
            ready.append(self._joined(source[:length], last=False))
            rest = source[length - OVERLAP_FRAMES * HOP_SAMPLES :]
            self._waiting, self._waiting_samples = [rest], len(rest)
        return np.concatenate(ready) if ready else np.zeros(0, np.float32)

    def finish(self) -> FloatArray:
        """Converts what is left; the converter is done then."""
        if self._waiting_samples == 0:
            return np.zeros(0, np.float32)
        source = np.concatenate(self._waiting)
        self._waiting, self._waiting_samples = [], 0
        return self._joined(source, last=True)

    def _joined(self, source: FloatArray, *, last: bool) -> FloatArray:
        made = self._voice.run(
            source,
            self._statistics,
            pitch_st=self._pitch_st,
            position=self._position,
            phase_frame=self._phase_frame,
            phase_cycles=self._phase_cycles,
        )
        if self._statistics is None and np.count_nonzero(made.f0_hz) >= _CALIBRATED_FRAMES:
            self._statistics = made.statistics
        gain = speech_gain(source, made.samples, made.f0_hz)
        self._gain = self._gain if gain is None else gain
        speech = silence_gate(source, made.samples, self._gain)
        if self._held is not None and self._held_f0 is not None:
            speech = join(self._held, self._held_f0, speech, made.f0_hz)
        if last:
            return speech
        self._hold(speech, made)
        return speech[: -OVERLAP_FRAMES * HOP_SAMPLES]

    def _hold(self, speech: FloatArray, made: Converted) -> None:
        overlap = OVERLAP_FRAMES * HOP_SAMPLES
        self._held = speech[-overlap:]
        self._held_f0 = made.f0_hz[-OVERLAP_FRAMES:]
        step = SEGMENT_FRAMES - OVERLAP_FRAMES
        self._position += step * HOP_SAMPLES
        # F0 may differ where the next segment begins, without its past; further in it does not.
        self._phase_frame = _MARGIN_FRAMES
        self._phase_cycles = float(made.cycles[step + _MARGIN_FRAMES - 1] % 1.0)


def join(
    before: FloatArray, before_f0: FloatArray, after: FloatArray, after_f0: FloatArray
) -> FloatArray:
    """Two stretches that share frames, as one.

    Args:
        before: shape (300 * 160,), the end of what came before.
        before_f0: shape (300,), its pitch.
        after: shape (T,), T at least 300 * 160: the same stretch again, and on.
        after_f0: shape (F,), its pitch.

    Returns:
        shape (T,): `before` up to the joint and `after` from there.
    """
    overlap = OVERLAP_FRAMES * HOP_SAMPLES
    power = before.astype(np.float64) ** 2 + after[:overlap].astype(np.float64) ** 2
    cost = power.reshape(OVERLAP_FRAMES, HOP_SAMPLES).mean(axis=1)
    voiced = (before_f0 > 0) | (after_f0[:OVERLAP_FRAMES] > 0)
    cost = np.convolve(cost + _VOICED_COST * voiced, np.ones(_FADE_FRAMES), "valid")
    first = _MARGIN_FRAMES + int(np.argmin(cost[_MARGIN_FRAMES:-_MARGIN_FRAMES]))
    start, end = first * HOP_SAMPLES, (first + _FADE_FRAMES) * HOP_SAMPLES
    rising = (np.arange(end - start, dtype=np.float32) + 0.5) / (end - start)
    joined = after.copy()
    joined[:start] = before[:start]
    joined[start:end] = before[start:end] * (1.0 - rising) + after[start:end] * rising
    return joined
