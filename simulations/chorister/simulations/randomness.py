"""The keyed generator of a simulation: reproducible, and therefore not private."""

from __future__ import annotations

import hashlib
import hmac
from typing import final

from chorister.shared.randomness import Randomness, expand


@final
class SimulatedRandomness(Randomness):
    """Bytes that follow from a seed and a path of labels.

    Args:
        seed: the run's seed.
        labels: the path, e.g. device name, round, purpose.
    """

    private = False
    statement = "simulated randomness, not private"

    def __init__(self, seed: int, *labels: str) -> None:
        key = hashlib.sha256(
            b"chorister simulation" + seed.to_bytes(8, "big", signed=True)
        ).digest()
        for label in labels:
            key = hmac.digest(key, label.encode(), "sha256")
        self._key = key
        self._draws = 0

    def __repr__(self) -> str:
        return "SimulatedRandomness()"

    def bytes(self, n: int) -> bytes:
        """Return the next n bytes of this path."""
        key = hmac.digest(self._key, b"draw" + self._draws.to_bytes(8, "big"), "sha256")
        self._draws += 1
        return expand(key, n)

    def fork(self, label: str) -> SimulatedRandomness:
        """Return the source one label further on; it does not depend on the draws so far."""
        child = SimulatedRandomness.__new__(SimulatedRandomness)
        child._key = hmac.digest(self._key, b"fork" + label.encode(), "sha256")
        child._draws = 0
        return child
