"""Log-mel analysis: one row every 10 ms, the only spectrum that the voice model reads.

Frames are centred at t * 160 + 80 samples, so a recording of T samples has T // 160 frames and
frame t describes exactly the samples that the vocoder writes for it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio
from chorister.shared.types import MEL_BANDS, SAMPLE_RATE_HZ, FeatureSequence, FloatArray, Recording
from chorister.shared.voice.frames import HOP_SAMPLES, frames_of, hann
from chorister.shared.voice.pitch import DEFAULT_F0_METHOD, F0Method, f0_estimator

WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
FFT_BINS = FFT_SAMPLES // 2 + 1
MEL_FLOOR = 1e-5
_FRAMES_AT_ONCE = 4096


def hz_to_mel(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    linear = 3.0 * frequency_hz / 200.0
    above = 15.0 + 27.0 * np.log(np.maximum(frequency_hz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(frequency_hz < 1000.0, linear, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `hz_to_mel`."""
    above = 1000.0 * np.exp(np.log(6.4) * (np.maximum(mel, 15.0) - 15.0) / 27.0)
    return np.asarray(np.where(mel < 15.0, 200.0 * mel / 3.0, above))


@cache
def mel_edges_hz() -> NDArray[np.float64]:
    """Corners of the 80 triangles; band b spans edges b to b + 2 and peaks at b + 1.

    Returns:
        shape (82,), float64, from 0 to 8000 Hz.
    """
    top = hz_to_mel(np.array([SAMPLE_RATE_HZ / 2.0]))[0]
    return mel_to_hz(np.linspace(0.0, top, MEL_BANDS + 2))


def mel_filters(fft_samples: int = FFT_SAMPLES) -> FloatArray:
    """Triangular filterbank whose weights sum to 1 in each band: a band is a mean magnitude.

    Args:
        fft_samples: length of the transform, even, at least 512.

    Returns:
        shape (fft_samples // 2 + 1, 80), float32.
    """
    edges = mel_edges_hz()
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2.0, fft_samples // 2 + 1)[:, None]
    low, peak, high = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    weights = np.minimum((bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak))
    weights = np.maximum(weights, 0.0)
    return np.asarray(weights / weights.sum(axis=0, keepdims=True), np.float32)


@cache
def _analysis() -> tuple[FloatArray, FloatArray]:
    return hann(WINDOW_SAMPLES), mel_filters()


def _magnitude(framed: FloatArray) -> FloatArray:
    """Magnitudes of frames of 400 samples, shape (F, 257)."""
    window, _ = _analysis()
    spectrum = np.fft.rfft(framed * window, FFT_SAMPLES, axis=1)
    return np.abs(spectrum).astype(np.float32, copy=False)


def magnitude_spectrum(samples: FloatArray) -> FloatArray:
    """The linear spectrum that the log-mel is made of, for pictures and measures.

    Args:
        samples: shape (T,), float32, 16 kHz; zeros are assumed beyond both ends.

    Returns:
        shape (T // 160, 257), float32, magnitudes of the windowed frames' 512-point transform,
        from 0 to 8000 Hz.
    """
    framed = frames_of(samples, WINDOW_SAMPLES)
    out = np.empty((len(framed), FFT_BINS), np.float32)
    for start in range(0, len(framed), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        out[part] = _magnitude(framed[part])
    return out


def log_mel(samples: FloatArray) -> FloatArray:
    """Natural logarithm of the mel magnitudes, floored at 1e-5.

    Args:
        samples: shape (T,), float32, 16 kHz; zeros are assumed beyond both ends, and samples past
            the last whole hop are left out.

    Returns:
        shape (T // 160, 80), float32.
    """
    _, filters = _analysis()
    framed = frames_of(samples, WINDOW_SAMPLES)
    out = np.empty((len(framed), MEL_BANDS), np.float32)
    for start in range(0, len(framed), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        out[part] = np.log(np.maximum(_magnitude(framed[part]) @ filters, MEL_FLOOR))
    return out


def extract_features(
    recording: Recording, f0_method: F0Method = DEFAULT_F0_METHOD
) -> FeatureSequence:
    """Log-mel and F0 of a recording, on the same frames.

    Args:
        recording: at least one hop (10 ms) long.
        f0_method: one of `pitch.F0_METHODS`; the base is trained with the default.

    Returns:
        F = T // 160 frames.

    Raises:
        BadAudio: the recording is shorter than one frame.
        BadSettings: the F0 method is unknown or its package missing.
    """
    if len(recording.samples) < HOP_SAMPLES:
        raise BadAudio(
            "A recording must hold at least one frame of 10 ms.",
            f"{recording.name!r} with {len(recording.samples)} samples",
            "Use a longer recording.",
        )
    estimate_f0 = f0_estimator(f0_method)
    return FeatureSequence(log_mel(recording.samples), estimate_f0(recording.samples))
