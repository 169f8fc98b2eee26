"""The wire form of a masked delta: modulus_bits a value, and no other type has one."""

from __future__ import annotations

import numpy as np

from chorister.shared.errors import BadMessage
from chorister.shared.types import MaskedDelta


def pack(delta: MaskedDelta) -> bytes:
    """Return the values at modulus_bits each, little-endian, lowest bit first.

    Args:
        delta: shape (d,), uint32.

    Returns:
        ceil(d x modulus_bits / 8) bytes; spare bits of the last are 0.
    """
    words = delta.values.astype("<u4")
    if delta.modulus_bits == 32:
        return words.tobytes()
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.packbits(bits[:, : delta.modulus_bits], bitorder="little").tobytes()


def unpack(packed: bytes, dimension: int, modulus_bits: int) -> MaskedDelta:
    """Return the masked delta in its wire form.

    Args:
        packed: ceil(d x modulus_bits / 8) bytes.
        dimension: d.
        modulus_bits: 16 to 32.

    Raises:
        BadMessage: spare bits are set.
    """
    if modulus_bits == 32:
        return MaskedDelta(np.frombuffer(packed, dtype="<u4").astype(np.uint32), 32)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    if bits[dimension * modulus_bits :].any():
        raise BadMessage("Spare bits of a packed vector are 0.", "others", "Drop the message.")
    wide = np.zeros((dimension, 32), dtype=np.uint8)
    wide[:, :modulus_bits] = bits[: dimension * modulus_bits].reshape(dimension, modulus_bits)
    words = np.packbits(wide, axis=1, bitorder="little").view("<u4").reshape(dimension)
    return MaskedDelta(words.astype(np.uint32), modulus_bits)
