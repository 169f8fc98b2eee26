"""Mel cepstra: the cosine series of a log-mel, raw and as the field's MFCC.

Shape letters: F frames, K mel bands, C coefficients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadAudio
from chorister.shared.types import FloatArray

MFCC_COEFFICIENTS = 13
DELTA_REACH = 2

Values = NDArray[np.float64] | FloatArray


def mel_cepstrum(log_mel: Values, coefficients: int) -> NDArray[np.float64]:
    """Cosine series of a log-mel: log_mel[k] = c0 + sum over m of c_m cos(pi m (k + 1/2) / K).

    Args:
        log_mel: shape (F, K), natural logarithm of magnitudes.
        coefficients: how many after c0, which is left out; below K.

    Returns:
        shape (F, coefficients).
    """
    bands = log_mel.shape[1]
    order = np.arange(1, coefficients + 1)
    basis = np.cos(np.pi * (np.arange(bands)[:, None] + 0.5) * order / bands)
    return np.asarray(np.asarray(log_mel, np.float64) @ basis * (2.0 / bands))


def mfcc(
    log_mel: Values, coefficients: int = MFCC_COEFFICIENTS, lifter: int = 0
) -> NDArray[np.float64]:
    """Mel-frequency cepstral coefficients (Davis and Mermelstein 1980): orthonormal DCT-II.

    Args:
        log_mel: shape (F, K), natural logarithm of mel magnitudes, as `features.log_mel` gives it.
        coefficients: how many, the level c0 among them; 1 to K.
        lifter: L of the weights 1 + (L / 2) sin(pi m / L) that make the coefficients' spreads
            alike (HTK Book, section 5.6; 22 there); 0 leaves them as they are.

    Returns:
        shape (F, coefficients), in nepers times sqrt(K); c0 first.

    Raises:
        BadAudio: more coefficients than bands, or fewer than one.
    """
    frames, bands = log_mel.shape
    if not 1 <= coefficients <= bands:
        raise BadAudio(
            f"MFCC of {bands} bands are 1 to {bands} coefficients.",
            str(coefficients),
            "Ask for fewer.",
        )
    wide = np.asarray(log_mel, np.float64)
    found = np.empty((frames, coefficients))
    found[:, 0] = wide.sum(axis=1) / np.sqrt(bands)
    found[:, 1:] = mel_cepstrum(wide, coefficients - 1) * np.sqrt(bands / 2.0)
    if lifter > 0:
        found *= 1.0 + lifter / 2.0 * np.sin(np.pi * np.arange(coefficients) / lifter)
    return found


def deltas(rows: Values, reach: int = DELTA_REACH) -> NDArray[np.float64]:
    """Slope of each coefficient over time, by linear regression (HTK Book, equation 5.16).

    Args:
        rows: shape (F, C); beyond both ends its first and last row are taken.
        reach: frames to each side, at least 1.

    Returns:
        shape (F, C), change a frame of 10 ms; empty for empty rows.
    """
    wide = np.asarray(rows, np.float64)
    count = len(wide)
    if count == 0:
        return wide
    padded = np.pad(wide, ((reach, reach), (0, 0)), mode="edge")
    offsets = range(1, reach + 1)
    slope = sum(
        n * (padded[reach + n : reach + n + count] - padded[reach - n : reach - n + count])
        for n in offsets
    )
    return np.asarray(slope / (2.0 * sum(n * n for n in offsets)))
