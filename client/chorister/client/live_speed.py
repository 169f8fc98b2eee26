"""How long a step of a live voice takes on this machine."""

from __future__ import annotations

import time

import numpy as np

from chorister.client.stream_voice import LiveStream, LiveVoice
from chorister.client.voice import SourceStatistics
from chorister.shared.types import MEL_BANDS, SAMPLE_RATE_HZ
from chorister.shared.voice.frames import HOP_SAMPLES

_WARM_UP = 20
_PITCH_HZ = 150.0


def step_times_ms(voice: LiveVoice, steps: int) -> list[float]:
    """Times of steps of 10 ms, in milliseconds, sorted.

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
    times = []
    for hop in tone.astype(np.float32).reshape(-1, HOP_SAMPLES):
        began = time.perf_counter()
        stream.step(hop)
        times.append(1000.0 * (time.perf_counter() - began))
    return sorted(times[_WARM_UP:])
