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
from scipy.signal import butter, resample_poly

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ, Recording
from chorister.simulations.acoustics import (
    Array,
    bell,
    decaying_response,
    equalise,
    reverberate,
    shelf,
)

ShiftKind = Literal["none", "microphone", "room", "telephone"]
SHIFT_KINDS: tuple[str, ...] = get_args(ShiftKind)

MICROPHONE_NOISE_DBFS = -62.0
TELEPHONE_NOISE_DBFS = -55.0
ROOM_T60_S = 0.4
ROOM_DIRECT_TO_REVERBERANT_DB = 1.0


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


def _microphone(samples: Array, draw: np.random.Generator) -> Array:
    """A cheap capsule in a tube: boxy, nasal, dull, and with its own hiss."""
    return equalise(_capsule(), samples) + _noise(samples, MICROPHONE_NOISE_DBFS, draw)


def _room(samples: Array, draw: np.random.Generator) -> Array:
    """A bare room: the tail after the last sample is cut off, so lengths do not change."""
    del draw
    return reverberate(samples, _impulse_response())


def _telephone(samples: Array, draw: np.random.Generator) -> Array:
    """A land line: 300 to 3400 Hz, 8 kHz, 8 bits in mu-law (ITU-T G.711's curve)."""
    band = _band()
    line = equalise(band, samples + _noise(samples, TELEPHONE_NOISE_DBFS, draw))
    narrow = np.clip(resample_poly(line, 1, 2), -1.0, 1.0)
    compressed = np.sign(narrow) * np.log1p(255.0 * np.abs(narrow)) / np.log(256.0)
    coded = np.round(compressed * 127.0) / 127.0
    narrow = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256.0)) / 255.0
    wide: Array = resample_poly(narrow, 2, 1)[: len(samples)]
    return equalise(band, wide)


_SHIFTS: Mapping[str, Callable[[Array, np.random.Generator], Array]] = MappingProxyType(
    {"microphone": _microphone, "room": _room, "telephone": _telephone}
)


def _noise(samples: Array, level_dbfs: float, draw: np.random.Generator) -> Array:
    return draw.normal(0.0, 10.0 ** (level_dbfs / 20.0), len(samples))


@cache
def _capsule() -> Array:
    """Second-order sections: no bass, a boxy and a nasal resonance, a dip, and a dull top."""
    return np.stack(
        [
            *butter(2, 120.0, "highpass", fs=SAMPLE_RATE_HZ, output="sos"),
            bell(450.0, 7.0, 1.4),
            bell(1200.0, -8.0, 1.2),
            bell(2600.0, 8.0, 1.8),
            shelf(4000.0, -12.0),
        ]
    )


@cache
def _impulse_response() -> Array:
    draw = np.random.default_rng(20240117)
    return decaying_response(ROOM_T60_S, ROOM_DIRECT_TO_REVERBERANT_DB, draw)


@cache
def _band() -> Array:
    sections: Array = butter(4, (300.0, 3400.0), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return sections
