"""Another voice out of a recording: speed, pitch and formants, without any model.

Pitch and formant changes keep every sound where it was, so that labels and F0 (times the ratio)
still fit, frame by frame. Shape letters: T samples at 16 kHz, F frames.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.features import FFT_BINS, FFT_SAMPLES
from chorister.shared.voice.frames import HOP_SAMPLES, frames_of, hann
from chorister.shared.voice.lpc import envelope, linear_prediction

LOWEST_RATIO = 0.5
HIGHEST_RATIO = 2.0
# Up to here formants move in proportion; above, the axis is bent so that 8 kHz stays.
_KNEE_HZ = 4800.0
_LARGEST_GAIN = np.log(10.0)
_WINDOW_SAMPLES = 2 * HOP_SAMPLES


def _check(ratio: float) -> None:
    if not LOWEST_RATIO <= ratio <= HIGHEST_RATIO:
        raise BadSettings(
            f"A change of speed, pitch or formants is {LOWEST_RATIO} to {HIGHEST_RATIO}.",
            f"{ratio:g}",
            "Choose a ratio nearer to 1.",
        )


def change_speed(samples: FloatArray, ratio: float) -> FloatArray:
    """Play faster or slower: tempo, pitch and formants all move (Ko et al. 2015, Interspeech).

    Args:
        samples: shape (T,), float32.
        ratio: 0.5 to 2; above 1 is faster, higher and shorter.

    Returns:
        shape (about T / ratio,), float32.

    Raises:
        BadSettings: the ratio is out of range.
    """
    _check(ratio)
    if ratio == 1.0:
        return samples
    return np.asarray(soxr.resample(samples, SAMPLE_RATE_HZ * ratio, SAMPLE_RATE_HZ), np.float32)


def change_pitch(samples: FloatArray, ratio: float) -> FloatArray:
    """Move F0 and keep formants and timing: Signalsmith Stretch, then the old envelope again.

    Args:
        samples: shape (T,), float32.
        ratio: 0.5 to 2; of the new F0 to the old.

    Returns:
        shape (T,), float32.

    Raises:
        BadSettings: the ratio is out of range, or python-stretch is not installed.
    """
    _check(ratio)
    if ratio == 1.0 or len(samples) == 0:
        return samples
    try:
        from python_stretch import Signalsmith
    except ImportError as error:
        raise BadSettings(
            "Moving the pitch needs the package python-stretch.",
            str(error),
            "pip install 'chorister[training]', or set pitch_chance to 0.",
        ) from error
    stretch = Signalsmith.Stretch()
    stretch.preset(1, SAMPLE_RATE_HZ)
    stretch.setTransposeFactor(ratio)
    moved = np.asarray(stretch.process(samples[None]), np.float32)[0]
    return change_formants(moved, 1.0 / ratio)


def change_formants(samples: FloatArray, ratio: float) -> FloatArray:
    """Move the envelope along frequency and keep F0 and timing: another vocal tract length.

    Each frame is multiplied, with zero phase, by its moved all-pole envelope over the present one.

    Args:
        samples: shape (T,), float32.
        ratio: 0.5 to 2; a formant at f Hz moves to f * ratio, up to about 4.8 kHz.

    Returns:
        shape (T,), float32.

    Raises:
        BadSettings: the ratio is out of range.
    """
    _check(ratio)
    if ratio == 1.0 or len(samples) == 0:
        return samples
    # A hop before and two after, so that windows sum to one everywhere.
    whole = -len(samples) % HOP_SAMPLES
    padded = np.pad(samples, (HOP_SAMPLES, whole + HOP_SAMPLES))
    log_envelope = envelope(linear_prediction(padded), FFT_SAMPLES)
    gain = log_envelope @ _move_matrix(ratio) - log_envelope
    # Where the envelope came from beyond its range the ratio means little: 20 dB is enough.
    gain = np.exp(np.clip(gain, -_LARGEST_GAIN, _LARGEST_GAIN))
    edge = (FFT_SAMPLES - _WINDOW_SAMPLES) // 2
    framed = np.pad(
        frames_of(padded, _WINDOW_SAMPLES) * hann(_WINDOW_SAMPLES), ((0, 0), (edge,) * 2)
    )
    filtered = np.fft.irfft(np.fft.rfft(framed, axis=1) * gain, FFT_SAMPLES, axis=1)
    lead = (FFT_SAMPLES - HOP_SAMPLES) // 2
    out = np.zeros(len(padded) + 2 * lead)
    for t, frame in enumerate(filtered):
        out[t * HOP_SAMPLES : t * HOP_SAMPLES + FFT_SAMPLES] += frame
    start = lead + HOP_SAMPLES
    return out[start : start + len(samples)].astype(np.float32)


def came_from_hz(frequency_hz: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Where the sound that is heard at a frequency was before formants moved by a ratio.

    Args:
        frequency_hz: any shape, 0 to 8000.
        ratio: above 0; proportional up to about 4.8 kHz, then bent so that 8 kHz stays (vocal tract
            length perturbation, Jaitly and Hinton 2013).
    """
    nyquist = SAMPLE_RATE_HZ / 2.0
    knee = _KNEE_HZ * min(ratio, 1.0)
    slope = (nyquist - knee / ratio) / (nyquist - knee)
    return np.where(
        frequency_hz <= knee, frequency_hz / ratio, nyquist - slope * (nyquist - frequency_hz)
    )


@lru_cache(maxsize=128)
def _move_matrix(ratio: float) -> NDArray[np.float64]:
    """Moves a log spectrum of 257 bins, shape (257, 257); rows are the old bins."""
    hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2.0, FFT_BINS)
    position = came_from_hz(hz, ratio) / hz[1]
    below = np.minimum(position.astype(int), FFT_BINS - 2)
    matrix = np.zeros((FFT_BINS, FFT_BINS))
    matrix[below, np.arange(FFT_BINS)] = 1.0 - (position - below)
    matrix[below + 1, np.arange(FFT_BINS)] = position - below
    return matrix
