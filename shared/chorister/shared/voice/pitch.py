"""The estimators of fundamental frequency by name: the one place where one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.energy import frame_energy_db
from chorister.shared.voice.f0 import HIGHEST_HZ, LOWEST_HZ, QUIET, estimate_f0
from chorister.shared.voice.frames import HOP_SAMPLES

F0Method = Literal["yin-viterbi", "harvest"]
F0_METHODS: tuple[str, ...] = get_args(F0Method)
DEFAULT_F0_METHOD: F0Method = "yin-viterbi"

F0Estimator = Callable[[FloatArray], FloatArray]

# What `estimate_f0` calls unvoiced for being quiet: twice its mean square is a difference of QUIET.
_QUIETEST_DB = 10.0 * np.log10(QUIET / 2.0)


def f0_estimator(name: str = DEFAULT_F0_METHOD) -> F0Estimator:
    """The estimator of a name.

    Args:
        name: `yin-viterbi`, ours, about 0.01 of real time, which the base is trained with and the
            voice files hold; or `harvest`, WORLD's (Morise 2017), about 0.8 of real time, for
            comparison and for data that ours fails on.

    Returns:
        a function from samples (T,), float32, 16 kHz, to F0 (T // 160,), float32, Hz in [62, 460],
        0 where unvoiced or quieter than -74 dBFS.

    Raises:
        BadSettings: the name is unknown, or its package is not installed.
    """
    if name not in _ESTIMATORS:
        raise BadSettings(
            f"The F0 method is one of {', '.join(F0_METHODS)}.", repr(name), "Choose one of them."
        )
    return _ESTIMATORS[name]()


def _harvest() -> F0Estimator:
    try:
        import pyworld
    except ImportError as error:
        raise BadSettings(
            "The F0 method 'harvest' needs the package pyworld.",
            str(error),
            "pip install 'chorister[harvest]', or choose yin-viterbi.",
        ) from error

    def estimate(samples: FloatArray) -> FloatArray:
        count = len(samples) // HOP_SAMPLES
        if count == 0:
            return np.zeros(0, np.float32)
        # Rows every 5 ms: the odd ones lie in the middles of our hops.
        found, _ = pyworld.harvest(
            np.asarray(samples, np.float64),
            SAMPLE_RATE_HZ,
            f0_floor=LOWEST_HZ,
            f0_ceil=HIGHEST_HZ,
            frame_period=5.0,
        )
        f0_hz = np.zeros(count, np.float32)
        middles = found[1::2][:count]
        f0_hz[: len(middles)] = middles
        f0_hz[frame_energy_db(samples) < _QUIETEST_DB] = 0.0
        # Harvest's refinement may leave its own range by a little.
        return np.where(f0_hz > 0, np.clip(f0_hz, LOWEST_HZ, HIGHEST_HZ), 0.0).astype(np.float32)

    return estimate


_ESTIMATORS: Mapping[str, Callable[[], F0Estimator]] = MappingProxyType(
    {"yin-viterbi": lambda: estimate_f0, "harvest": _harvest}
)
