"""One type for each stage on the walk from a recording to a new shared adapter.

    Recording -> FeatureSequence -> AdapterDelta -> ClippedDelta -> NoisedDelta -> MaskedDelta
              -> Aggregate -> Adapter

Each stage's function takes the type before it and returns its own, so a stage that is left out is a
type error. Of all these only `MaskedDelta` has a wire form (`chorister.shared.secagg.messages`).

Shape letters: T samples, F frames, d adapter size (docs/glossary.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
SAMPLE_RATE_HZ = 16_000
MEL_BANDS = 80


@dataclass(frozen=True, slots=True)
class Recording:
    """Mono speech at 16 kHz.

    Attributes:
        samples: shape (T,), float32, nominal range [-1, 1], finite.
        name: what to call it in messages; never leaves the device.
    """

    samples: FloatArray
    name: str

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class FeatureSequence:
    """What the voice model reads of a recording, one row a frame of 10 ms.

    Attributes:
        log_mel: shape (F, 80), float32, natural logarithm of mel magnitudes, floor 1e-5.
        f0_hz: shape (F,), float32, fundamental frequency; 0 where unvoiced.
    """

    log_mel: FloatArray
    f0_hz: FloatArray


@dataclass(frozen=True, slots=True)
class Adapter:
    """The shared adapter as one flat vector, named by its content.

    Attributes:
        values: shape (d,), float32, finite.
        spec: digest of the adapter's layout (rank, placement, sizes), 64 hexadecimal digits.
    """

    values: FloatArray
    spec: str


@dataclass(frozen=True, slots=True)
class AdapterDelta:
    """What local training changed, before any protection. It has no wire form.

    Attributes:
        values: shape (d,), float32, trained minus received.
    """

    values: FloatArray

    def __repr__(self) -> str:
        return f"AdapterDelta(d={len(self.values)})"


@dataclass(frozen=True, slots=True)
class ClippedDelta:
    """A delta whose L2 norm is at most `clip_norm`. It has no wire form.

    Attributes:
        values: shape (d,), float64.
        clip_norm: the bound, above 0.
        within: whether the delta was no longer than that before it was clipped.
    """

    values: NDArray[np.float64]
    clip_norm: float
    within: bool

    def __repr__(self) -> str:
        return f"ClippedDelta(d={len(self.values)}, clip_norm={self.clip_norm})"


@dataclass(frozen=True, slots=True)
class NoisedDelta:
    """Quantised integers with this client's share of integer noise. It has no wire form.

    One client's share is sized for `min_honest` clients together: alone it is not private enough.

    Attributes:
        values: shape (d,), int64, signed, not yet reduced by the modulus.
        modulus_bits: the sum is taken modulo 2**modulus_bits.
    """

    values: NDArray[np.int64]
    modulus_bits: int

    def __repr__(self) -> str:
        return f"NoisedDelta(d={len(self.values)}, modulus_bits={self.modulus_bits})"


@dataclass(frozen=True, slots=True)
class MaskedDelta:
    """Uniformly random to anyone without the masks: the one stage that may leave the device.

    Attributes:
        values: shape (d,), uint32, in [0, 2**modulus_bits).
        modulus_bits: between 16 and 32.
    """

    values: NDArray[np.uint32]
    modulus_bits: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The noisy sum over the survivors, unmasked and centred.

    Attributes:
        values: shape (d,), int64, in [-2**(modulus_bits-1), 2**(modulus_bits-1)).
        survivors: device ids whose deltas are in the sum, sorted.
        modulus_bits: the modulus it was taken by.
    """

    values: NDArray[np.int64]
    survivors: tuple[str, ...]
    modulus_bits: int
