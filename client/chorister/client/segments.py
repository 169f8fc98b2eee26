"""Speech of any length through a voice, in overlapping segments, with constant memory.

Two neighbours share three seconds. They are joined, somewhere in the middle second, at the quietest
unvoiced frame that both agree on; noise and pulse phase run through, so they are nearly the same
there and a short cross-fade is not heard. A result that is faster or slower than its source has its
own frames: neighbours share those too, since all are counted from the start of the file.
"""

from __future__ import annotations

import math

import numpy as np

from chorister.client.calibration import Calibration
from chorister.client.controls import NEUTRAL, Controls
from chorister.client.level import LevelFollower
from chorister.client.voice import SourceStatistics, Voice
from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES

SEGMENT_FRAMES = 2000
OVERLAP_FRAMES = 300
_FADE_FRAMES = 4
# Stands for more power than any frame has: a voiced frame is a joint only if all are voiced.
_VOICED_COST = 1e6


class SegmentConverter:
    """Converts a stream: feed it blocks, and finish.

    Args:
        voice: to speak with.
        controls: all but the energy, which is the caller's to apply.
        statistics: the source speaker's; None calibrates on the first two seconds of voiced
            speech, and keeps them from there on. A segment before that is heard by itself.
        source_lufs: loudness of the whole source, where it is known: what is far below it is a
            pause. None judges each segment by itself.
    """

    def __init__(
        self,
        voice: Voice,
        *,
        controls: Controls = NEUTRAL,
        statistics: SourceStatistics | None = None,
        source_lufs: float | None = None,
    ) -> None:
        self._voice = voice
        self._controls = controls
        self._statistics = statistics
        self._levels = LevelFollower(source_lufs)
        self._waiting: list[FloatArray] = []
        self._waiting_samples = 0
        # Where the next segment begins: in the source, and in the result; both in frames.
        self._source_frame = 0
        self._frame = 0
        self._phase_frame = 0
        self._phase_cycles = 0.0
        self._held: FloatArray | None = None
        self._held_f0: FloatArray | None = None

    def feed(self, samples: FloatArray) -> FloatArray:
        """Takes more of the source.

        Args:
            samples: shape (T,), float32, 16 kHz.

        Returns:
            what is ready, shape (T',): over all calls, as long as the source over the rate,
            rounded up.
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
        rate = self._controls.rate
        if self._statistics is None:
            self._statistics = Calibration().feed(source)
        # The first frame of the result that lies in this segment, and how far into it.
        offset = max(self._frame * rate - self._source_frame, 0.0)
        made = self._voice.run(
            source,
            self._statistics,
            controls=self._controls,
            frame_offset=offset,
            position=self._frame * HOP_SAMPLES,
            phase_frame=self._phase_frame,
            phase_cycles=self._phase_cycles,
        )
        speech = self._levels.follow(source, made.samples, rate=rate, offset=offset)
        if self._held is not None and self._held_f0 is not None:
            speech = join(self._held, self._held_f0, speech, made.f0_hz)
        if last:
            return speech
        self._source_frame += SEGMENT_FRAMES - OVERLAP_FRAMES
        step = math.ceil(self._source_frame / rate) - self._frame
        self._held, self._held_f0 = speech[step * HOP_SAMPLES :], made.f0_hz[step:]
        self._frame += step
        # F0 may differ where the next segment begins, without its past; further in it does not.
        self._phase_frame = len(self._held_f0) // 3
        self._phase_cycles = float(made.cycles[step + self._phase_frame - 1] % 1.0)
        return speech[: step * HOP_SAMPLES]


def join(
    before: FloatArray, before_f0: FloatArray, after: FloatArray, after_f0: FloatArray
) -> FloatArray:
    """Two stretches that share frames, as one.

    Args:
        before: shape (T,), the end of what came before, T at most F * 160.
        before_f0: shape (F,), its pitch.
        after: shape (T',), T' at least T: the same stretch again, and on.
        after_f0: shape (F',), its pitch.

    Returns:
        shape (T',): `before` up to a joint in its middle third, and `after` from there.
    """
    frames = len(before) // HOP_SAMPLES
    overlap = frames * HOP_SAMPLES
    power = before[:overlap].astype(np.float64) ** 2 + after[:overlap].astype(np.float64) ** 2
    cost = power.reshape(frames, HOP_SAMPLES).mean(axis=1)
    voiced = (before_f0[:frames] > 0) | (after_f0[:frames] > 0)
    cost = np.convolve(cost + _VOICED_COST * voiced, np.ones(_FADE_FRAMES), "valid")
    margin = frames // 3
    first = margin + int(np.argmin(cost[margin:-margin]))
    start, end = first * HOP_SAMPLES, (first + _FADE_FRAMES) * HOP_SAMPLES
    rising = (np.arange(end - start, dtype=np.float32) + 0.5) / (end - start)
    joined = after.copy()
    joined[:start] = before[:start]
    joined[start:end] = before[start:end] * (1.0 - rising) + after[start:end] * rising
    return joined
