"""Statistics of a source speaker who is not enrolled: two seconds of voiced speech, then frozen.

Files, recordings in memory and streams are all calibrated here, so that the same speech gets the
same statistics. Where a whole source holds less, all of it is used.
"""

from __future__ import annotations

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
_LEAST_VOICED_S = 0.2
_FRAMES_A_SECOND = 100
# The analysis is repeated after this much more, over at most the last half minute.
_STEP_SAMPLES = SAMPLE_RATE_HZ // 2
_MOST_SAMPLES = 30 * SAMPLE_RATE_HZ


class Calibration:
    """Listens until there are two seconds of voiced speech.

    It looks at every half second of the source, however that is fed, so the same source gives the
    same statistics.

    Attributes:
        voiced_s: voiced speech in what it looked at, in seconds.
        statistics: what it found; None before.
    """

    def __init__(self) -> None:
        self._heard = np.zeros(0, np.float32)
        self._waiting: list[FloatArray] = []
        self._waiting_samples = 0
        self.voiced_s = 0.0
        self.statistics: SourceStatistics | None = None

    def feed(self, samples: FloatArray) -> SourceStatistics | None:
        """Takes more of the source.

        Args:
            samples: shape (T,), float32, 16 kHz, finite.

        Returns:
            the statistics once there is enough; None before.
        """
        if self.statistics is not None:
            return self.statistics
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        if self._waiting_samples >= _STEP_SAMPLES:
            joined = np.concatenate(self._waiting)
            whole = len(joined) // _STEP_SAMPLES * _STEP_SAMPLES
            self._waiting, self._waiting_samples = [joined[whole:]], len(joined) - whole
            for start in range(0, whole, _STEP_SAMPLES):
                self._look(joined[start : start + _STEP_SAMPLES], CALIBRATED_S)
        return self.statistics

    def finish(self) -> SourceStatistics | None:
        """The statistics of a source that ended: of all of it, where it held less than 2 s.

        Returns:
            None where less than 0.2 s of it is voiced: a pitch could not be told.
        """
        if self.statistics is None:
            self._look(np.concatenate([np.zeros(0, np.float32), *self._waiting]), _LEAST_VOICED_S)
        return self.statistics

    def _look(self, samples: FloatArray, enough_s: float) -> None:
        if self.statistics is not None:
            return
        self._heard = np.concatenate([self._heard, samples])[-_MOST_SAMPLES:]
        f0_hz = estimate_f0(self._heard)
        self.voiced_s = np.count_nonzero(f0_hz) / _FRAMES_A_SECOND
        if self.voiced_s >= enough_s:
            self.statistics = statistics_of(self._heard, f0_hz)


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
    for block in stream_recording(path):
        if (found := calibration.feed(block)) is not None:
            return found
    raise BadAudio(
        f"A source is calibrated on {CALIBRATED_S:.0f} s of voiced speech.",
        f"{calibration.voiced_s:.1f} s in {path}",
        "Give a longer recording of the same speaker with --calibrate.",
    )
