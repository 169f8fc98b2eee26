"""From a trained delta to integers that may be summed: clip, rotate, quantise, add noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadSettings
from chorister.shared.privacy.discrete_gaussian import discrete_gaussian
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.quantise import round_within_norm
from chorister.shared.secagg.rotation import rotate
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import AdapterDelta, ClippedDelta, NoisedDelta


@dataclass(frozen=True, slots=True)
class QuantisedDelta:
    """A clipped delta in integer steps, without noise. It has no wire form.

    Attributes:
        values: shape (d,), int64; where the clip adapts, the bit is one value more.
        modulus_bits: the sum is taken modulo 2**modulus_bits.
    """

    values: NDArray[np.int64]
    modulus_bits: int

    def __repr__(self) -> str:
        return f"QuantisedDelta(d={len(self.values)}, modulus_bits={self.modulus_bits})"


def clip(delta: AdapterDelta, clip_norm: float) -> ClippedDelta:
    """Return the delta scaled down to an L2 norm of at most clip_norm.

    Args:
        delta: shape (d,), float32.
        clip_norm: above 0.

    Raises:
        BadSettings: a value that is not finite; training diverged, and nothing of it is sent.
    """
    values = delta.values.astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise BadSettings(
            "A delta is finite.",
            "a NaN or an infinity",
            "Lower the learning rate; nothing was sent.",
        )
    norm = float(np.linalg.norm(values))
    if norm > clip_norm:
        values = values * (clip_norm / norm)
    return ClippedDelta(values, clip_norm, norm <= clip_norm)


def quantise(
    clipped: ClippedDelta, terms: RoundTerms, seed: bytes, randomness: Randomness
) -> QuantisedDelta:
    """Return the delta in integer steps, rounded at random within the norm that noise is sized for.

    Where the terms say so it is rotated first, and where the clip adapts, one more value says
    whether the delta was within it: half a count up or down, so that nobody's is zero.

    Args:
        clipped: shape (d,), float64, clipped to the norm that the terms state.
        terms: of the round.
        seed: of the round's rotation, 32 bytes.
        randomness: of the rounding.

    Raises:
        BadSettings: the delta was clipped to another norm, or has another dimension.
    """
    if clipped.clip_norm > terms.clip_norm or len(clipped.values) != terms.dimension:
        raise BadSettings(
            f"A delta has {terms.dimension} values clipped to {terms.clip_norm}.",
            f"{len(clipped.values)} values clipped to {clipped.clip_norm}",
            "Clip it to the norm that the round's terms state.",
        )
    values = rotate(clipped.values, seed) if terms.rotation else clipped.values
    rounded = round_within_norm(values * terms.scale, terms.norm_bound, randomness)
    if terms.bit_steps:
        bit = terms.bit_steps if clipped.within else -terms.bit_steps
        rounded = np.append(rounded, np.int64(bit))
    return QuantisedDelta(rounded, terms.modulus_bits)


def add_noise(quantised: QuantisedDelta, terms: RoundTerms, randomness: Randomness) -> NoisedDelta:
    """Return the delta with this device's share of the discrete Gaussian noise.

    The share is sized for min_honest devices together: alone it is too small. Terms without
    speaker-level privacy add none, and say so.

    Args:
        quantised: shape (terms.length,), int64.
        terms: of the round.
        randomness: of the noise.
    """
    values = quantised.values
    if terms.private:
        values = values + discrete_gaussian(terms.client_variance, len(values), randomness)
    return NoisedDelta(values, terms.modulus_bits)
