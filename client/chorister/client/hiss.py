"""The vocoder's noise inside a voice file: `shared.voice.hiss` as operators."""

from __future__ import annotations

import numpy as np

from chorister.client.onnx_graph import Graph
from chorister.shared.voice.hiss import LOOP_SCALE, PERIOD, loop


def add_hiss(graph: Graph, position: str, count: str) -> str:
    """Adds `hiss_at` to a graph, with its loop.

    Args:
        graph: changed in place.
        position: value of shape (), int64.
        count: value of shape (), int64.

    Returns:
        value of shape (count,), float32.
    """
    zero, one, period = (graph.constant(np.array(value, np.int64)) for value in (0, 1, PERIOD))
    places = graph("Mod", graph("Add", graph("Range", zero, count, one), position), period)
    samples = graph("Gather", graph.constant(loop()), places)
    return graph("Mul", graph.cast(samples, np.float32), graph.number(LOOP_SCALE))
