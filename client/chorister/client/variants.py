"""What a voice file loses in fewer bits, measured on a recording."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from chorister.client.precision import PRECISIONS, Precision, reduced
from chorister.client.voice import Voice
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.metrics import log_spectral_distance_db

LONGEST_S = 20.0
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """One voice file in one precision.

    Attributes:
        precision: of its weights.
        data: the file.
        snr_db: level of what the full file says over the difference; infinite for the full file.
        log_mel_distance_db: root mean square difference over 80 bands, mean over frames.
        real_time_factor: processor's seconds for a second of speech, one thread; median of 3.
    """

    precision: Precision
    data: bytes
    snr_db: float
    log_mel_distance_db: float
    real_time_factor: float


def measure_variants(voice: bytes, samples: FloatArray, name: str) -> tuple[Variant, ...]:
    """Makes and measures a voice file in every precision.

    Args:
        voice: a voice file in full precision.
        samples: shape (T,), 16 kHz; the first 20 s are converted.
        name: what to call the voice in errors.

    Raises:
        BadWeights: no voice file.
        UsageError: it is not in full precision.
    """
    Voice(voice, name)
    samples = samples[: round(LONGEST_S * SAMPLE_RATE_HZ)]
    found: list[Variant] = []
    full: FloatArray | None = None
    for precision in PRECISIONS:
        data = voice if precision == "fp32" else reduced(voice, precision, name)
        opened = Voice(data, f"{name} in {precision}")
        made = opened.run(samples).samples
        full = made if full is None else full
        times = []
        for _ in range(_REPEATS):
            began = time.process_time()
            opened.run(samples)
            times.append(time.process_time() - began)
        factor = statistics.median(times) * SAMPLE_RATE_HZ / len(samples)
        distance = log_spectral_distance_db(log_mel(full), log_mel(made))
        found.append(Variant(precision, data, _snr_db(full, made), distance, factor))
    return tuple(found)


def _snr_db(wanted: FloatArray, found: FloatArray) -> float:
    error = float(np.square(wanted - found, dtype=np.float64).sum())
    level = float(np.square(wanted, dtype=np.float64).sum())
    return 10.0 * float(np.log10(level / error)) if error > 0.0 else float("inf")
