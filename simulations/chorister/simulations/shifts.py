"""What all clients of a scenario share and the base model lacks: microphone, room or telephone.

A shift is a fixed filter and a little noise, applied to a recording when it is read. The filters
are constants of this module; the noise follows from the recording's name, so the same file always
sounds the same and two files never share their noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ, Recording

ShiftKind = Literal["none", "microphone", "room", "telephone"]
SHIFT_KINDS: tuple[str, ...] = get_args(ShiftKind)

MICROPHONE_NOISE_DBFS = -62.0
TELEPHONE_NOISE_DBFS = -55.0
ROOM_T60_S = 0.4
ROOM_DIRECT_TO_REVERBERANT_DB = 1.0

_Array = NDArray[np.float64]


def apply_shift(recording: Recording, kind: str) -> Recording:
    """Return the recording as the scenario's microphone, room or telephone would have given it.

    Args:
        recording: as it was read; its name selects the noise.
        kind: one of `SHIFT_KINDS`; "none" returns the recording itself.

    Returns:
        a recording of the same length and name, limited to [-1, 1].

    Raises:
        BadSettings: `kind` is unknown.
    """
    if kind == "none":
        return recording
    if kind not in _SHIFTS:
        raise BadSettings(
            f"The shift is one of {', '.join(SHIFT_KINDS)}.", repr(kind), "Correct the scenario."
        )
    digest = hashlib.sha256(f"{kind}\0{recording.name}".encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    shifted = _SHIFTS[kind](recording.samples.astype(np.float64), draw)
    return Recording(np.clip(shifted, -1.0, 1.0).astype(np.float32), recording.name)


def _microphone(samples: _Array, draw: np.random.Generator) -> _Array:
    """A cheap capsule in a tube: boxy, nasal, dull, and with its own hiss."""
    return _filter(_capsule(), samples) + _noise(samples, MICROPHONE_NOISE_DBFS, draw)


def _room(samples: _Array, draw: np.random.Generator) -> _Array:
    """A bare room: the tail after the last sample is cut off, so lengths do not change."""
    del draw
    reverberant: _Array = fftconvolve(samples, _impulse_response())[: len(samples)]
    return reverberant


def _telephone(samples: _Array, draw: np.random.Generator) -> _Array:
    """A land line: 300 to 3400 Hz, 8 kHz, 8 bits in mu-law (ITU-T G.711's curve)."""
    band = _band()
    line = _filter(band, samples + _noise(samples, TELEPHONE_NOISE_DBFS, draw))
    narrow = np.clip(resample_poly(line, 1, 2), -1.0, 1.0)
    compressed = np.sign(narrow) * np.log1p(255.0 * np.abs(narrow)) / np.log(256.0)
    coded = np.round(compressed * 127.0) / 127.0
    narrow = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256.0)) / 255.0
    wide: _Array = resample_poly(narrow, 2, 1)[: len(samples)]
    return _filter(band, wide)


_SHIFTS: Mapping[str, Callable[[_Array, np.random.Generator], _Array]] = MappingProxyType(
    {"microphone": _microphone, "room": _room, "telephone": _telephone}
)


def _filter(sections: _Array, samples: _Array) -> _Array:
    filtered: _Array = sosfilt(sections, samples)
    return filtered


def _noise(samples: _Array, level_dbfs: float, draw: np.random.Generator) -> _Array:
    return draw.normal(0.0, 10.0 ** (level_dbfs / 20.0), len(samples))


@cache
def _capsule() -> _Array:
    """Second-order sections: no bass, a boxy and a nasal resonance, a dip, and a dull top."""
    return np.stack(
        [
            *butter(2, 120.0, "highpass", fs=SAMPLE_RATE_HZ, output="sos"),
            _bell(450.0, 7.0, 1.4),
            _bell(1200.0, -8.0, 1.2),
            _bell(2600.0, 8.0, 1.8),
            _shelf(4000.0, -12.0),
        ]
    )


def _bell(centre_hz: float, gain_db: float, q: float) -> _Array:
    """Peaking equaliser (R. Bristow-Johnson, Cookbook formulae for audio EQ)."""
    a = 10.0 ** (gain_db / 40.0)
    angle = 2.0 * np.pi * centre_hz / SAMPLE_RATE_HZ
    alpha = np.sin(angle) / (2.0 * q)
    middle = -2.0 * np.cos(angle)
    numerator = np.array([1.0 + alpha * a, middle, 1.0 - alpha * a])
    denominator = np.array([1.0 + alpha / a, middle, 1.0 - alpha / a])
    section: _Array = np.concatenate([numerator, denominator]) / denominator[0]
    return section


def _shelf(corner_hz: float, gain_db: float) -> _Array:
    """High shelf of slope 1, of the same source."""
    a = 10.0 ** (gain_db / 40.0)
    angle = 2.0 * np.pi * corner_hz / SAMPLE_RATE_HZ
    c, slope = np.cos(angle), 2.0 * np.sqrt(a) * np.sin(angle) / np.sqrt(2.0)
    up, down = a + 1.0, a - 1.0
    numerator = a * np.array([up + down * c + slope, -2.0 * (down + up * c), up + down * c - slope])
    denominator = np.array([up - down * c + slope, 2.0 * (down - up * c), up - down * c - slope])
    section: _Array = np.concatenate([numerator, denominator]) / denominator[0]
    return section


@cache
def _impulse_response() -> _Array:
    """Direct sound, then exponentially decaying noise that starts 5 ms later (Polack's model)."""
    draw = np.random.default_rng(20240117)
    t = np.arange(round(1.2 * ROOM_T60_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = draw.normal(size=len(t)) * 10.0 ** (-3.0 * t / ROOM_T60_S)
    tail = _filter(butter(1, 5000.0, fs=SAMPLE_RATE_HZ, output="sos"), tail)
    tail[: round(0.005 * SAMPLE_RATE_HZ)] = 0.0
    tail *= 10.0 ** (-ROOM_DIRECT_TO_REVERBERANT_DB / 20.0) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    response: _Array = tail / np.sqrt(np.square(tail).sum())
    return response


@cache
def _band() -> _Array:
    sections: _Array = butter(4, (300.0, 3400.0), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return sections
