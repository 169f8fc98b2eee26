"""The vocoder's noise as a function of the sample's position: integers mixed to look random.

Segments of a long file then share their noise where they overlap, a voice file needs no generator,
and every runtime computes the same bits: no step leaves the range of signed 64-bit integers.
The mixing is a 31-bit xor-shift-multiply hash after Wellons' 'lowbias32'.
"""

from __future__ import annotations

import numpy as np

from chorister.client.onnx_graph import Graph
from chorister.shared.types import FloatArray

_MASK = (1 << 31) - 1
_ROUNDS = ((15, 0x7FEB352D), (14, 0x846CA68B), (15, 0x9E3779B1))
_TO_UNIT_VARIANCE = float(np.sqrt(12.0))


def hiss_at(position: int, count: int) -> FloatArray:
    """White noise, uniform, of mean 0 and variance 1.

    Args:
        position: index of the first sample, at least 0.
        count: how many samples.

    Returns:
        shape (count,), float32, in [-1.74, 1.74].
    """
    x = (np.arange(count, dtype=np.int64) + position) & _MASK
    for shift, factor in _ROUNDS:
        x = ((x ^ (x >> shift)) * factor) & _MASK
    unit = (x.astype(np.float64) / (_MASK + 1.0) - 0.5) * _TO_UNIT_VARIANCE
    return unit.astype(np.float32)


def add_hiss(graph: Graph, position: str, count: str) -> str:
    """Adds `hiss_at` to a graph.

    Args:
        graph: changed in place.
        position: value of shape (), int64.
        count: value of shape (), int64.

    Returns:
        value of shape (count,), float32.
    """
    mask = graph.ints(_MASK)
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    x = graph("BitwiseAnd", graph("Add", graph("Range", zero, count, one), position), mask)
    for shift, factor in _ROUNDS:
        # A shift of a number that is not negative is a division.
        mixed = graph("BitwiseXor", x, graph("Div", x, graph.ints(1 << shift)))
        x = graph("BitwiseAnd", graph("Mul", mixed, graph.ints(factor)), mask)
    share = graph("Div", graph.cast(x, np.float64), graph.double(_MASK + 1.0))
    centred = graph("Sub", share, graph.double(0.5))
    scaled = graph("Mul", centred, graph.double(_TO_UNIT_VARIANCE))
    return graph.cast(scaled, np.float32)
