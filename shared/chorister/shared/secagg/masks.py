"""Masks: AES-256-CTR under a seed, added or subtracted modulo a power of two."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_CHUNK_BYTES = 2**18
_ZEROS = bytes(_CHUNK_BYTES)
_COUNTER = bytes(16)


class MaskedSum:
    """A vector modulo 2**32 to which masks are added in place.

    A smaller modulus 2**b divides 2**32, so reducing at the end gives the sum modulo 2**b.

    Args:
        dimension: d.
    """

    __slots__ = ("_buffer", "_total")

    def __init__(self, dimension: int) -> None:
        self._total = np.zeros(dimension, dtype=np.uint32)
        # update_into asks for room for one block less a byte.
        self._buffer = bytearray(min(4 * dimension, _CHUNK_BYTES) + 15)

    def __repr__(self) -> str:
        return f"MaskedSum(d={len(self._total)})"

    def add(self, values: NDArray[np.uint32]) -> None:
        """Add a vector, shape (d,), uint32."""
        np.add(self._total, values, out=self._total)

    def add_mask(self, seed: bytes) -> None:
        """Add the mask of a 32-byte seed."""
        self._apply(seed, subtract=False)

    def subtract_mask(self, seed: bytes) -> None:
        """Subtract the mask of a 32-byte seed."""
        self._apply(seed, subtract=True)

    def reduced(self, modulus_bits: int) -> NDArray[np.uint32]:
        """Return the values modulo 2**modulus_bits, shape (d,), uint32."""
        return self._total & np.uint32(2**modulus_bits - 1)

    def _apply(self, seed: bytes, *, subtract: bool) -> None:
        stream = Cipher(algorithms.AES256(seed), modes.CTR(_COUNTER)).encryptor()
        operation = np.subtract if subtract else np.add
        words = _CHUNK_BYTES // 4
        for start in range(0, len(self._total), words):
            part = self._total[start : start + words]
            stream.update_into(memoryview(_ZEROS)[: 4 * len(part)], self._buffer)
            mask = np.frombuffer(self._buffer, dtype="<u4", count=len(part))
            operation(part, mask, out=part)


def expand_mask(seed: bytes, dimension: int, modulus_bits: int) -> NDArray[np.uint32]:
    """Return the mask of a seed by itself, shape (d,), uint32, below 2**modulus_bits."""
    total = MaskedSum(dimension)
    total.add_mask(seed)
    return total.reduced(modulus_bits)


def centred(values: NDArray[np.uint32], modulus_bits: int) -> NDArray[np.int64]:
    """Return the representatives in [-2**(modulus_bits-1), 2**(modulus_bits-1)), shape (d,)."""
    half = 2 ** (modulus_bits - 1)
    shifted: NDArray[np.int64] = (values.astype(np.int64) + half) % 2**modulus_bits
    shifted -= half
    return shifted


def residues(values: NDArray[np.int64], modulus_bits: int) -> NDArray[np.uint32]:
    """Return signed values modulo 2**modulus_bits, shape (d,), uint32."""
    reduced: NDArray[np.int64] = values & (2**modulus_bits - 1)
    return reduced.astype(np.uint32)
