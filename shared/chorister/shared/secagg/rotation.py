"""A seeded rotation of deltas before they are rounded (docs/protocol.md, section 8).

Two Walsh-Hadamard transforms with random signs, one over the first b values and one over the last,
where b is the largest power of two that fits: every value is in at least one of them, and nothing
is padded. It is orthogonal, so norms, clips and sensitivities stay what they are; what one
coordinate held is spread over at least half of them. Source: Suresh et al. 2017, section 3; in
secure sums Kairouz, Liu, Steinke 2021, section 4.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from chorister.shared.randomness import expand


def rotation_seed(roster: bytes) -> bytes:
    """Return the seed of a round's rotation, 32 bytes.

    It follows from everybody's fresh keys: whoever advertised had committed to them before anyone
    could know it.

    Args:
        roster: digest of the roster, 32 bytes.
    """
    return hashlib.sha256(b"chorister/1 rotation\x00" + roster).digest()


def rotate(values: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
    """Return the rotated vector, shape (d,), of the same L2 norm.

    Args:
        values: shape (d,), d at least 1.
        seed: of the signs, 32 bytes.
    """
    rotated = values.astype(np.float64)
    for block, signs in _blocks(len(values), seed):
        rotated[block] = _transform(rotated[block] * signs)
    return rotated


def unrotate(values: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
    """Return the vector that `rotate` was given, but for floating-point rounding, shape (d,)."""
    straight = values.astype(np.float64)
    # A normalised Walsh-Hadamard transform is its own inverse.
    for block, signs in reversed(_blocks(len(values), seed)):
        straight[block] = _transform(straight[block]) * signs
    return straight


def _blocks(d: int, seed: bytes) -> list[tuple[slice, NDArray[np.float64]]]:
    size = 1 << (d.bit_length() - 1)
    starts = [0] if size == d else [0, d - size]
    stream = np.frombuffer(expand(seed, (size * len(starts) + 7) // 8), dtype=np.uint8)
    signs = np.array([1.0, -1.0])[np.unpackbits(stream, bitorder="little")]
    return [
        (slice(start, start + size), signs[i * size : (i + 1) * size])
        for i, start in enumerate(starts)
    ]


def _transform(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normalised Walsh-Hadamard transform in natural order; the length a power of 2."""
    size, half = len(values), 1
    while half < size:
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
        half *= 2
    scaled: NDArray[np.float64] = values.reshape(size) / np.sqrt(size)
    return scaled
