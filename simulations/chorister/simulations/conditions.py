"""What may stand between a source and the model: noise, a room, a narrow band."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.signal import resample_poly

from chorister.shared.errors import UsageError
from chorister.shared.types import Recording
from chorister.simulations.acoustics import add_noise
from chorister.simulations.shifts import apply_shift

CLEAN = "clean"
NOISE, ROOM, NARROW = "noise", "room", "narrow"
CONDITIONS = {
    NOISE: "noise at 10 dB SNR",
    ROOM: "in a room (T60 0.4 s)",
    NARROW: "8 kHz",
}
SNR_DB = 10.0
# Pink: as much in each octave.
NOISE_SLOPE_DB = -3.0


def degrade(recording: Recording, condition: str) -> Recording:
    """Return a recording as it would have been under a condition, limited to [-1, 1].

    Noise is drawn by the recording's name, so that the same file always sounds the same.

    Args:
        recording: as it was read.
        condition: "clean" or one of `CONDITIONS`.
    """
    if condition == CLEAN:
        return recording
    if condition == ROOM:
        return apply_shift(recording, "room")
    samples = recording.samples.astype(np.float64)
    if condition == NARROW:
        changed = resample_poly(resample_poly(samples, 1, 2), 2, 1)[: len(samples)]
    else:
        digest = hashlib.sha256(f"{condition}\0{recording.name}".encode()).digest()
        draw = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        changed = add_noise(samples, SNR_DB, draw, NOISE_SLOPE_DB)
    return Recording(np.clip(changed, -1.0, 1.0).astype(np.float32), recording.name)


def read_conditions(argument: str) -> tuple[str, ...]:
    """Conditions of a list such as "noise,room"; "all" and "none" are lists too.

    Raises:
        UsageError: an unknown name.
    """
    if argument in ("all", "none"):
        return tuple(CONDITIONS) if argument == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in argument.split(",") if name.strip()))
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown or not names:
        raise UsageError(
            f"--conditions takes all, none, or some of {', '.join(CONDITIONS)}.",
            repr(argument),
            "Correct it.",
        )
    return names
