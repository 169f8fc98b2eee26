"""Fourier bases that a graph computes when it is loaded, from one period of a cosine.

Written out they are a quarter of a voice file. Runtimes fold what depends on constants alone, once,
so that a product with them costs what it costs with a table.
"""

from __future__ import annotations

import numpy as np

from chorister.client.onnx_graph import Graph
from chorister.shared.voice.features import FFT_BINS, FFT_SAMPLES

_QUARTER = FFT_SAMPLES // 4


def add_dft(graph: Graph, rows: int) -> str:
    """The transform of the first `rows` of 512 samples.

    Returns:
        value of shape (rows, 514), float64: real parts of 257 bins, then imaginary parts.
    """
    turns = _turns(graph, rows, FFT_BINS)
    # The imaginary part is minus the sine: the cosine a quarter of a turn on.
    return graph("Concat", _cosine(graph, turns, 0), _cosine(graph, turns, _QUARTER), axis=1)


def add_inverse_dft(graph: Graph) -> str:
    """The way back: value of shape (514, 512), float32."""
    turns = _turns(graph, FFT_BINS, FFT_SAMPLES)
    both = graph("Concat", _cosine(graph, turns, 0), _cosine(graph, turns, _QUARTER), axis=0)
    # Every bin but the outermost stands for itself and its mirror image.
    weight = np.full(FFT_BINS, 2.0 / FFT_SAMPLES)
    weight[[0, -1]] = 1.0 / FFT_SAMPLES
    weights = graph.constant(np.concatenate([weight, weight])[:, None])
    return graph.cast(graph("Mul", both, weights), np.float32)


def _turns(graph: Graph, rows: int, columns: int) -> str:
    """Row number times column number, shape (rows, columns), int64."""
    down, across = np.arange(rows)[:, None], np.arange(columns)[None]
    return graph("Mul", graph.constant(down), graph.constant(across))


def _cosine(graph: Graph, turns: str, ahead: int) -> str:
    """Cosine of so many 512ths of a turn, `ahead` further on."""
    period = np.cos(2.0 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)
    period[[_QUARTER, -_QUARTER]] = 0.0
    place = graph("Mod", graph("Add", turns, graph.ints(ahead)), graph.ints(FFT_SAMPLES))
    return graph("Gather", graph.constant(period), place)
