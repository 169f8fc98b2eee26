"""How good a recording is, in figures: speech, noise, clipping and bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import stft

from chorister.client.voice_activity import frame_levels_db, speech_frames
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording

_FFT = 512
# A lossy codec bends the flat tops of a clipped wave: near the ceiling counts.
_NEAR_PEAK = 0.99
_AUDIBLE_PEAK = 0.1
# Speech is heard up to the frequency at which its loud frames fall so far below its strongest band.
_BANDWIDTH_DB = 70.0
_LOUD_FRAMES = 95.0
_MOST_SNR_DB = 80.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one recording.

    Attributes:
        seconds: its length.
        speech_s: how much of it is speech.
        snr_db: level of speech over the level of the quietest tenth.
        clipped: share of samples at the recording's ceiling.
        bandwidth_hz: highest frequency that its speech reaches.
    """

    seconds: float
    speech_s: float
    snr_db: float
    clipped: float
    bandwidth_hz: float

    @property
    def speech_share(self) -> float:
        """Share of the recording that is speech."""
        return self.speech_s / self.seconds if self.seconds else 0.0


def measure_quality(recording: Recording, *, silero: bool | None = None) -> Quality:
    """Return the figures of a recording.

    Args:
        recording: as it was recorded: neither levelled nor cleaned.
        silero: as in `speech_frames`.
    """
    spoken = speech_frames(recording.samples, silero=silero)
    return Quality(
        seconds=recording.duration_s,
        speech_s=float(np.count_nonzero(spoken)) / 100.0,
        snr_db=_snr_db(recording.samples, spoken),
        clipped=clipped_share(recording.samples),
        bandwidth_hz=bandwidth_hz(recording.samples),
    )


def clipped_share(samples: FloatArray) -> float:
    """Return the share of samples that sit at the ceiling in runs of three or more, 0 to 1."""
    size = np.abs(samples)
    if not len(size) or size.max() < _AUDIBLE_PEAK:
        return 0.0
    at_top = size >= _NEAR_PEAK * size.max()
    run = at_top[:-2] & at_top[1:-1] & at_top[2:]
    return float(np.count_nonzero(run)) / len(size)


def bandwidth_hz(samples: FloatArray) -> float:
    """Return the highest frequency that the loud frames reach, 0 to 8000 Hz."""
    _, _, spectrum = stft(
        samples, SAMPLE_RATE_HZ, nperseg=min(_FFT, len(samples)), window="blackmanharris"
    )
    power = np.percentile(np.square(np.abs(spectrum)), _LOUD_FRAMES, axis=1)
    levels: NDArray[np.float64] = 10.0 * np.log10(power + 1e-20)
    reached = np.flatnonzero(levels > levels.max() - _BANDWIDTH_DB)
    return float(reached[-1] * SAMPLE_RATE_HZ / 2.0 / (len(levels) - 1))


def _snr_db(samples: FloatArray, spoken: NDArray[np.bool_]) -> float:
    """Level of the speech frames over the quietest tenth of all frames, 0 to 80 dB."""
    levels = frame_levels_db(samples)
    if not spoken.any():
        return 0.0
    speech = 10.0 * np.log10(np.mean(10.0 ** (levels[spoken] / 10.0)))
    floor = float(np.percentile(levels, 10.0))
    return float(np.clip(speech - floor, 0.0, _MOST_SNR_DB))
