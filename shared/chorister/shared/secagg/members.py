"""A set of devices of one roster, as a bit map on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chorister.shared.errors import BadMessage
from chorister.shared.secagg.terms import MAX_COHORT


@dataclass(frozen=True, slots=True)
class Members:
    """A set of roster indices.

    Attributes:
        indices: the set.
    """

    indices: frozenset[int]

    @classmethod
    def of(cls, indices: Iterable[int]) -> Members:
        """Return the set of these indices."""
        return cls(frozenset(indices))

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.indices))

    def __len__(self) -> int:
        return len(self.indices)

    def __contains__(self, index: int) -> bool:
        return index in self.indices

    def within(self, n: int) -> bool:
        """Return whether every index is below n."""
        return all(0 <= i < n for i in self.indices)

    def to_bytes(self) -> bytes:
        """Return the bit map, lowest index first, without trailing zero bytes."""
        bits = bytearray(max(self.indices, default=-8) // 8 + 1)
        for i in self.indices:
            bits[i >> 3] |= 1 << (i & 7)
        return bytes(bits)

    @classmethod
    def from_bytes(cls, data: Any) -> Members:
        """Return the set in a bit map.

        Raises:
            BadMessage: not bytes, too long, or with trailing zero bytes.
        """
        if type(data) is not bytes or len(data) > MAX_COHORT // 8 or data.endswith(b"\x00"):
            raise BadMessage(
                f"A set of devices is a bit map of at most {MAX_COHORT // 8} bytes, none spare.",
                "something else",
                "Drop the message.",
            )
        number = int.from_bytes(data, "little")
        return cls(frozenset(i for i in range(number.bit_length()) if number >> i & 1))
