"""Where random bytes come from, as a type.

A deployment takes its keys, masks and noise from the operating system only. A simulation needs runs
that reproduce and uses a keyed generator; that class lives in `chorister.simulations`, so a device
that has only the client installed has no other source than the operating system's.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray


class Randomness(ABC):
    """A source of uniform bytes.

    Attributes:
        private: True only if nobody can predict or repeat the bytes.
        statement: what a report says about this source.
    """

    private: bool
    statement: str

    @abstractmethod
    def bytes(self, n: int) -> bytes:
        """Return n uniform bytes, n at least 0."""

    @abstractmethod
    def fork(self, label: str) -> Randomness:
        """Return a source for one purpose, independent of sources with other labels."""

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """Return n uniform 64-bit integers, shape (n,).

        Large draws expand a fresh 256-bit key by AES-256-CTR: the operating system is asked once.
        """
        return np.frombuffer(expand(self.bytes(32), 8 * n), dtype="<u8").astype(np.uint64)

    def normal(self, n: int) -> NDArray[np.float64]:
        """Return n standard normal deviates, shape (n,), by Box and Muller's method in float64.

        Floating-point Gaussian noise is only as good as its arithmetic (Mironov 2012); it serves
        DP-SGD on the device. The noise inside the secure sum is integer noise instead.
        """
        pairs = (n + 1) // 2
        bits = self.uint64(2 * pairs)
        # 53 random bits, shifted by half a step: the logarithm never sees 0.
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
        angle = 2.0 * np.pi * uniform[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


@final
class SystemRandomness(Randomness):
    """The operating system's generator."""

    private = True
    statement = "operating system generator"

    def bytes(self, n: int) -> bytes:
        """Return n bytes of `os.urandom`."""
        return os.urandom(n)

    def fork(self, label: str) -> SystemRandomness:
        """Return itself: every draw is fresh already."""
        return self


def expand(key: bytes, n: int) -> bytes:
    """Return n bytes of AES-256-CTR under a 32-byte key that is used for nothing else."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return encryptor.update(bytes(n)) + encryptor.finalize()
