"""How long a step of a live voice takes on this machine, beside a reference in the same run.

Other programs make both slower: waiting for a core shows in the wall clock alone, waiting for the
memory in both. So each step is also measured in processor time, and next to it a plain sum of as
many numbers as a live model has: what reading the model alone takes, here and now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from chorister.client.stream_voice import LiveStream, LiveVoice
from chorister.client.voice import SourceStatistics
from chorister.shared.types import MEL_BANDS, SAMPLE_RATE_HZ
from chorister.shared.voice.frames import HOP_SAMPLES

# As many float32 as a live voice holds: 11 MB.
REFERENCE_VALUES = 2_750_000
_REFERENCE_EVERY = 10
_WARM_UP = 20
_PITCH_HZ = 150.0


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times of steps of 10 ms, in milliseconds, sorted.

    Attributes:
        wall_ms: by the clock: what somebody waits.
        processor_ms: of the process: what it costs.
        reference_ms: processor time of summing `REFERENCE_VALUES` numbers, after some of the steps.
    """

    wall_ms: list[float]
    processor_ms: list[float]
    reference_ms: list[float]

    @property
    def ratio(self) -> float:
        """Median step over median reference, both in processor time."""
        return middle(self.processor_ms) / middle(self.reference_ms)


def measure_steps(voice: LiveVoice, steps: int) -> StepTimes:
    """Measures steps and references in turn.

    Args:
        voice: whose model; what is said does not change the time.
        steps: how many are measured, at least 1.
    """
    log_f0 = np.array([np.log(_PITCH_HZ), 0.2])
    statistics = SourceStatistics(
        np.full(MEL_BANDS, -5.0, np.float32), np.ones(MEL_BANDS, np.float32), log_f0
    )
    stream = LiveStream(voice, statistics)
    places = np.arange((steps + _WARM_UP) * HOP_SAMPLES) / SAMPLE_RATE_HZ
    tone = 0.1 * np.sign(np.sin(2.0 * np.pi * _PITCH_HZ * places))
    numbers = np.ones(REFERENCE_VALUES, np.float32)
    walls, processors, references = [], [], []
    for at, hop in enumerate(tone.astype(np.float32).reshape(-1, HOP_SAMPLES)):
        began_s, spent_s = time.perf_counter(), time.process_time()
        stream.step(hop)
        stepped_s = time.process_time()
        walls.append(1000.0 * (time.perf_counter() - began_s))
        processors.append(1000.0 * (stepped_s - spent_s))
        # Not after every step: it drives the model out of the cache.
        if at % _REFERENCE_EVERY == 0:
            stepped_s = time.process_time()
            numbers.sum()
            references.append(1000.0 * (time.process_time() - stepped_s))
    return StepTimes(sorted(walls[_WARM_UP:]), sorted(processors[_WARM_UP:]), sorted(references))


def middle(times_ms: list[float]) -> float:
    """The median of sorted times."""
    return times_ms[len(times_ms) // 2]
