"""Shamir's secret sharing over a prime field larger than 2**256 (Shamir 1979).

The share of holder i is the value at x = i + 1 of a random polynomial of degree t - 1 whose
constant term is the secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from chorister.shared.errors import BadMessage
from chorister.shared.randomness import Randomness

PRIME = 2**256 + 297
"""The smallest prime above 2**256, so that every 32-byte secret is an element."""
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(
    secret: bytes, holders: Sequence[int], threshold: int, randomness: Randomness
) -> dict[int, bytes]:
    """Return one share for each holder.

    Args:
        secret: 32 bytes.
        holders: distinct indices, at least `threshold` of them.
        threshold: t, how many shares reconstruct the secret; fewer say nothing about it.
        randomness: of the polynomial.

    Returns:
        holder to 33-byte share.
    """
    coefficients = [int.from_bytes(secret, "big"), *_field_elements(threshold - 1, randomness)]
    coefficients.reverse()
    shares = {}
    for holder in holders:
        x, value = holder + 1, 0
        for coefficient in coefficients:
            value = (value * x + coefficient) % PRIME
        shares[holder] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def reconstruct(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret that `threshold` shares determine.

    Args:
        shares: holder to 33-byte share, at least `threshold` of them; the lowest holders are used.
        threshold: t.

    Returns:
        32 bytes.

    Raises:
        BadMessage: too few shares, one outside of the field, or shares of no 32-byte secret.
    """
    holders = tuple(sorted(shares)[:threshold])
    if len(holders) < threshold:
        raise BadMessage(
            f"A secret needs {threshold} shares.",
            f"{len(holders)}",
            "Wait for more devices to reveal.",
        )
    values = [int.from_bytes(shares[holder], "big") for holder in holders]
    if any(value >= PRIME for value in values):
        raise BadMessage(
            "A share is an element of the field.", "a larger number", "Drop its holder."
        )
    weights = _weights_at_zero(holders)
    secret = sum(w * v for w, v in zip(weights, values, strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise BadMessage(
            "Shares reconstruct a secret of 32 bytes.",
            "a larger number",
            "Find who changed a share.",
        )
    return secret.to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=256)
def _weights_at_zero(holders: tuple[int, ...]) -> tuple[int, ...]:
    """Return Lagrange's weights for the value at 0."""
    xs = [holder + 1 for holder in holders]
    weights = []
    for x in xs:
        above = below = 1
        for other in xs:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)


def _field_elements(count: int, randomness: Randomness) -> list[int]:
    """Return uniform field elements: 257 random bits, refused from the prime on."""
    elements: list[int] = []
    while len(elements) < count:
        block = randomness.bytes(SHARE_BYTES * 2 * (count - len(elements)) + SHARE_BYTES)
        for start in range(0, len(block), SHARE_BYTES):
            element = int.from_bytes(block[start : start + SHARE_BYTES], "big") & (2**257 - 1)
            if element < PRIME and len(elements) < count:
                elements.append(element)
    return elements
