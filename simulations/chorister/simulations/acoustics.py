"""What stands between a mouth and a file: equalisers, rooms and noise, as filters and levels.

`shifts` makes the fixed channels of a scenario of these parts, `augment` draws a channel for each
training example. Shape letter: T samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ
from chorister.shared.voice.energy import speech_level_db

Array = NDArray[np.float64]

SOUND_SPEED_M_S = 343.0
_SMALLEST_ROOM_M = (2.5, 2.5, 2.3)
_LARGEST_ROOM_M = (7.0, 6.0, 3.5)
_FROM_WALL_M = 0.4
_FARTHEST_M = 1.5
# Half of the interpolation filter that the room package centres each reflection on.
_DELAY_FILTER_SAMPLES = 40
_LEAD_SAMPLES = 8
_LOWEST_NOISE_HZ = 50.0


def bell(centre_hz: float, gain_db: float, q: float) -> Array:
    """Peaking equaliser (R. Bristow-Johnson, Cookbook formulae for audio EQ).

    Args:
        centre_hz: above 0, below 8000.
        gain_db: at the centre.
        q: width, above 0.

    Returns:
        one second-order section, shape (6,).
    """
    a = 10.0 ** (gain_db / 40.0)
    angle = 2.0 * np.pi * centre_hz / SAMPLE_RATE_HZ
    alpha = np.sin(angle) / (2.0 * q)
    middle = -2.0 * np.cos(angle)
    numerator = np.array([1.0 + alpha * a, middle, 1.0 - alpha * a])
    denominator = np.array([1.0 + alpha / a, middle, 1.0 - alpha / a])
    section: Array = np.concatenate([numerator, denominator]) / denominator[0]
    return section


def shelf(corner_hz: float, gain_db: float) -> Array:
    """High shelf of slope 1, of the same source.

    Args:
        corner_hz: above 0, below 8000.
        gain_db: far above the corner.

    Returns:
        one second-order section, shape (6,).
    """
    a = 10.0 ** (gain_db / 40.0)
    angle = 2.0 * np.pi * corner_hz / SAMPLE_RATE_HZ
    c, slope = np.cos(angle), 2.0 * np.sqrt(a) * np.sin(angle) / np.sqrt(2.0)
    up, down = a + 1.0, a - 1.0
    numerator = a * np.array([up + down * c + slope, -2.0 * (down + up * c), up + down * c - slope])
    denominator = np.array([up - down * c + slope, 2.0 * (down - up * c), up - down * c - slope])
    section: Array = np.concatenate([numerator, denominator]) / denominator[0]
    return section


def equalise(sections: Array, samples: Array) -> Array:
    """Run samples (T,) through second-order sections (N, 6)."""
    filtered: Array = sosfilt(sections, samples)
    return filtered


def reverberate(samples: Array, response: Array) -> Array:
    """Samples (T,) in a room; what rings on after the last one is cut off."""
    heard: Array = fftconvolve(samples, response)[: len(samples)]
    return heard


def decaying_response(t60_s: float, direct_db: float, draw: np.random.Generator) -> Array:
    """Direct sound, then exponentially decaying noise that starts 5 ms later (Polack's model).

    Args:
        t60_s: time in which the tail falls by 60 dB.
        direct_db: power of the direct sound over the tail's.
        draw: of the tail.

    Returns:
        shape (1.2 t60 * 16000,), unit energy, the direct sound first.
    """
    t = np.arange(round(1.2 * t60_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = draw.normal(size=len(t)) * 10.0 ** (-3.0 * t / t60_s)
    tail = equalise(butter(1, 5000.0, fs=SAMPLE_RATE_HZ, output="sos"), tail)
    tail[: round(0.005 * SAMPLE_RATE_HZ)] = 0.0
    tail *= 10.0 ** (-direct_db / 20.0) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    response: Array = tail / np.sqrt(np.square(tail).sum())
    return response


def image_response(t60_s: float, draw: np.random.Generator) -> Array:
    """A shoe-box room with a speaker and a microphone in it (Allen and Berkley 1979, JASA 65).

    Size, place and distance (up to 1.5 m) are drawn; pyroomacoustics computes the images.

    Args:
        t60_s: wanted reverberation time by Sabine's formula, 0.1 to 1.
        draw: of the geometry.

    Returns:
        shape (T,), unit energy, the direct sound 8 samples after its start.

    Raises:
        BadSettings: pyroomacoustics is not installed.
    """
    try:
        import pyroomacoustics as pra
    except ImportError as error:
        raise BadSettings(
            "Simulated rooms need the package pyroomacoustics.",
            str(error),
            "pip install 'chorister[training]', or set room_chance to 0.",
        ) from error
    size = draw.uniform(_SMALLEST_ROOM_M, _LARGEST_ROOM_M)
    mouth = draw.uniform(_FROM_WALL_M, size - _FROM_WALL_M)
    direction = draw.normal(size=3)
    direction *= draw.uniform(0.2, _FARTHEST_M) / np.linalg.norm(direction)
    microphone = np.clip(mouth + direction, _FROM_WALL_M / 2, size - _FROM_WALL_M / 2)
    absorption, order = pra.inverse_sabine(max(t60_s, _shortest_t60_s(size)), size)
    room = pra.ShoeBox(size, fs=SAMPLE_RATE_HZ, materials=pra.Material(absorption), max_order=order)
    room.add_source(mouth)
    room.add_microphone(microphone)
    room.compute_rir()
    found = np.asarray(room.rir[0][0], np.float64)
    distance_m = float(np.linalg.norm(mouth - microphone))
    direct = _DELAY_FILTER_SAMPLES + round(distance_m / SOUND_SPEED_M_S * SAMPLE_RATE_HZ)
    start = direct - _LEAD_SAMPLES
    found = found[start : start + round(1.2 * t60_s * SAMPLE_RATE_HZ)]
    response: Array = found / np.sqrt(np.square(found).sum())
    return response


def _shortest_t60_s(size_m: Array) -> float:
    """Where walls that absorb nine tenths of the sound would bring the room, by Sabine."""
    x, y, z = size_m
    surface = 2.0 * (x * y + y * z + z * x)
    return float(24.0 * np.log(10.0) / SOUND_SPEED_M_S * x * y * z / (0.9 * surface))


def coloured_noise(count: int, slope_db: float, draw: np.random.Generator) -> Array:
    """Gaussian noise whose spectrum falls or rises evenly.

    Args:
        count: T, samples.
        slope_db: change of level an octave; 0 is white, -3 pink, -6 brown.
        draw: of the noise.

    Returns:
        shape (T,), unit power, nothing below 50 Hz.
    """
    spectrum = np.fft.rfft(draw.normal(size=count))
    hz = np.fft.rfftfreq(count, 1.0 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hz, _LOWEST_NOISE_HZ) / 1000.0)
    spectrum *= np.where(hz >= _LOWEST_NOISE_HZ, 10.0 ** (slope_db * octaves / 20.0), 0.0)
    noise: Array = np.fft.irfft(spectrum, count)
    power = float(np.mean(np.square(noise)))
    return noise / np.sqrt(power) if power > 0 else noise


def add_noise(
    samples: Array, snr_db: float, draw: np.random.Generator, slope_db: float = 0.0
) -> Array:
    """Samples with noise at a ratio to the level of their speech, pauses left out.

    Args:
        samples: shape (T,).
        snr_db: level of the speech over the noise's.
        draw: of the noise.
        slope_db: colour, as in `coloured_noise`.

    Returns:
        shape (T,); not limited to [-1, 1].
    """
    level_db = speech_level_db(samples.astype(np.float32)) - snr_db
    noise = coloured_noise(len(samples), slope_db, draw)
    noisy: Array = samples + 10.0 ** (level_db / 20.0) * noise
    return noisy
