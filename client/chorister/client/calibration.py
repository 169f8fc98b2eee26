"""Statistics of a source speaker who is not enrolled: two seconds of voiced speech, then frozen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chorister.client.voice import SourceStatistics
from chorister.shared.errors import BadAudio
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.audio import stream_recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.profile import QUARTILES_TO_SIGMA, SMALLEST_SPREAD, speech_frames

CALIBRATED_S = 2.0
_FRAMES_A_SECOND = 100
# The analysis is repeated after this much more, over at most the last half minute.
_STEP_SAMPLES = SAMPLE_RATE_HZ // 2
_MOST_SAMPLES = 30 * SAMPLE_RATE_HZ


class Calibration:
    """Listens until there are two seconds of voiced speech."""

    def __init__(self) -> None:
        self._heard = np.zeros(0, np.float32)
        self._unseen = 0
        self.voiced_s = 0.0

    def feed(self, samples: FloatArray) -> SourceStatistics | None:
        """Takes more of the source.

        Args:
            samples: shape (T,), float32, 16 kHz, finite.

        Returns:
            the statistics once there is enough; None before.
        """
        self._heard = np.concatenate([self._heard, samples])[-_MOST_SAMPLES:]
        self._unseen += len(samples)
        if self._unseen < _STEP_SAMPLES:
            return None
        self._unseen = 0
        f0_hz = estimate_f0(self._heard)
        self.voiced_s = np.count_nonzero(f0_hz) / _FRAMES_A_SECOND
        if self.voiced_s < CALIBRATED_S:
            return None
        return statistics_of(self._heard, f0_hz)


def statistics_of(samples: FloatArray, f0_hz: FloatArray) -> SourceStatistics:
    """What `profile.profile_from` finds, as far as the source of a conversion needs it.

    Args:
        samples: shape (T,), float32, 16 kHz.
        f0_hz: shape (T // 160,), some of it voiced.
    """
    frames = speech_frames(log_mel(samples))
    log_f0 = np.log(f0_hz[f0_hz > 0].astype(np.float64))
    low, median, high = np.percentile(log_f0, [25.0, 50.0, 75.0])
    spread = max((high - low) / QUARTILES_TO_SIGMA, SMALLEST_SPREAD)
    return SourceStatistics(
        frames.mean(axis=0), frames.std(axis=0), np.array([median, spread], np.float64)
    )


def calibrate_from(path: Path) -> SourceStatistics:
    """Calibrates on the beginning of a recording of the source speaker.

    Raises:
        BadAudio: as `audio.stream_recording`, or less than two seconds of voiced speech.
    """
    calibration = Calibration()
    for block in _steps(stream_recording(path)):
        if (found := calibration.feed(block)) is not None:
            return found
    raise BadAudio(
        f"A source is calibrated on {CALIBRATED_S:.0f} s of voiced speech.",
        f"{calibration.voiced_s:.1f} s in {path}",
        "Give a longer recording of the same speaker with --calibrate.",
    )


def _steps(blocks: Iterable[FloatArray]) -> Iterable[FloatArray]:
    """The same samples in pieces as long as the calibration looks at."""
    for block in blocks:
        for start in range(0, len(block), _STEP_SAMPLES):
            yield block[start : start + _STEP_SAMPLES]
