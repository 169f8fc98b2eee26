"""What the controls of a voice file do between its network and its vocoder.

Rate reads the network's frames at other places, formant reads its envelopes at other frequencies,
breathiness hands power from one envelope to the other. Each is exactly nothing at its neutral
value: no number changes by so much as a rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chorister.client.onnx_graph import Graph
from chorister.shared.voice.features import mel_edges_hz
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.vocoder import LOUDEST_LOG, QUIETEST_LOG

# Stands for no power at all where a logarithm is taken; far below what the vocoder can render.
_NO_POWER = 1e-12


@dataclass(frozen=True, slots=True)
class TimeMap:
    """Where each of the frames that are spoken, F', lies among the source's, F; names of values.

    Attributes:
        count: shape (1,), int64, F'.
        samples: shape (1,), int64, how many samples the result has.
        before: shape (F',), int64, the frame at or before it.
        after: shape (F',), int64, the next one.
        fraction: shape (F',), float64, in [0, 1), how far it lies between them.
    """

    count: str
    samples: str
    before: str
    after: str
    fraction: str


def add_time_map(graph: Graph, frames: str, length: str, rate: str, offset: str) -> TimeMap:
    """Places the frames of speech that is `rate` times as fast.

    Frame i is read at offset + (i + 1/2) rate - 1/2: at rate 1, at frame i itself.

    Args:
        graph: changed in place.
        frames: value of shape (1,), int64, F, at least 2.
        length: value of shape (1,), int64, the source's samples.
        rate: value of shape (), float64.
        offset: value of shape (), float64, in frames of the source, where the result begins.
    """
    one = graph.ints(1)
    last = graph("Sub", frames, one)
    wanted = graph("Div", graph("Sub", graph.cast(frames, np.float64), offset), rate)
    # The vocoder needs two frames; what they hold beyond the source is cut off with the samples.
    count = graph("Max", graph.cast(graph("Ceil", wanted), np.int64), graph.ints(2))
    hops = graph("Mul", offset, graph.double(HOP_SAMPLES))
    samples = graph("Div", graph("Sub", graph.cast(length, np.float64), hops), rate)
    samples = graph("Max", graph.cast(graph("Ceil", samples), np.int64), one)
    zero, step = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    steps = graph("Range", zero, graph("Squeeze", count, graph.ints(0)), step)
    half = graph.double(0.5)
    centres = graph("Mul", graph("Add", graph.cast(steps, np.float64), half), rate)
    places = graph("Add", graph("Sub", centres, half), offset)
    places = graph("Max", places, graph.double(0.0))
    places = graph("Min", places, graph.cast(last, np.float64))
    floor = graph("Floor", places)
    before = graph.cast(floor, np.int64)
    after = graph("Min", graph("Add", before, one), last)
    return TimeMap(count, samples, before, after, graph("Sub", places, floor))


def add_at_times(graph: Graph, rows: str, at: TimeMap) -> str:
    """Reads rows between frames, linearly: value of shape (1, F, C) to (1, F', C)."""
    before = graph("Gather", rows, at.before, axis=1)
    after = graph("Gather", rows, at.after, axis=1)
    share = graph("Unsqueeze", graph.cast(at.fraction, np.float32), graph.ints(1))
    return graph("Add", before, graph("Mul", graph("Sub", after, before), share))


def add_pitch_at_times(graph: Graph, f0_hz: str, at: TimeMap) -> str:
    """Reads the pitch: (F,) to (F',). Between voiced frames linearly, else the nearest frame's."""
    before, after = (graph("Gather", f0_hz, index) for index in (at.before, at.after))
    silent = graph.number(0.0)
    both = graph("And", graph("Greater", before, silent), graph("Greater", after, silent))
    share = graph.cast(at.fraction, np.float32)
    between = graph("Add", before, graph("Mul", graph("Sub", after, before), share))
    nearest = graph("Where", graph("Less", at.fraction, graph.double(0.5)), before, after)
    return graph("Where", both, between, nearest)


def add_formant_warp(graph: Graph, formant: str) -> str:
    """The matrix that moves an envelope along frequency: what was at f comes to lie at `formant` f.

    Args:
        graph: changed in place.
        formant: value of shape (), float32, above 0.

    Returns:
        value of shape (80, 80), float32, for envelopes on its left; the identity at 1. Beyond its
        outermost bands an envelope goes on as they end.
    """
    centres = mel_edges_hz()[1:-1].astype(np.float64)
    lower = np.append(centres[0] - 1.0, centres[:-1])
    upper = np.append(centres[1:], centres[-1] + 1.0)
    read = graph("Div", graph.constant(centres), graph.cast(formant, np.float64))
    read = graph("Clip", read, graph.double(centres[0]), graph.double(centres[-1]))
    # Triangles around the bands that are read; their sides meet the tops exactly.
    below, here, above = (graph.constant(edge[:, None]) for edge in (lower, centres, upper))
    rising = graph("Div", graph("Sub", read, below), graph("Sub", here, below))
    falling = graph("Div", graph("Sub", above, read), graph("Sub", above, here))
    weights = graph("Max", graph("Min", rising, falling), graph.double(0.0))
    weights = graph("Min", weights, graph.double(1.0))
    return graph.cast(weights, np.float32)


def add_breathiness(
    graph: Graph, harmonic: str, noise: str, f0_hz: str, breathiness: str
) -> tuple[str, str]:
    """Hands a share of one envelope's power to the other, band by band, in voiced frames.

    Pulses and noise both have unit power, so the spectrum as a whole stays as it is.

    Args:
        graph: changed in place.
        harmonic: value of shape (1, F, 80), log magnitudes.
        noise: value of shape (1, F, 80), log magnitudes.
        f0_hz: value of shape (F,), 0 where unvoiced.
        breathiness: value of shape (), float32, in [-1, 1]: above 0 the share of the pulses' power
            that becomes noise, below 0 the share of the noise's power that becomes pulses.

    Returns:
        harmonic and noise, clamped to what the vocoder renders.
    """
    zero = graph.number(0.0)
    low, high = graph.number(QUIETEST_LOG), graph.number(LOUDEST_LOG)
    harmonic, noise = (graph("Clip", envelope, low, high) for envelope in (harmonic, noise))
    voiced = graph.cast(graph("Greater", f0_hz, zero), np.float32)
    voiced = graph("Unsqueeze", voiced, graph.ints(0, 2))
    to_noise = graph("Mul", graph("Max", breathiness, zero), voiced)
    to_pulses = graph("Mul", graph("Max", graph("Neg", breathiness), zero), voiced)
    gap = graph("Sub", harmonic, noise)
    breathier = graph("Add", noise, _gained(graph, to_noise, gap))
    breathier = graph("Add", breathier, _left(graph, to_pulses))
    clearer = graph("Add", harmonic, _gained(graph, to_pulses, graph("Neg", gap)))
    clearer = graph("Add", clearer, _left(graph, to_noise))
    return clearer, breathier


def _gained(graph: Graph, share: str, louder_by: str) -> str:
    """Log magnitude that is added to an envelope by a share of one that is so much louder."""
    ratio = graph("Exp", graph("Mul", louder_by, graph.number(2.0)))
    power = graph("Add", graph("Mul", share, ratio), graph.number(1.0))
    return graph("Mul", graph("Log", power), graph.number(0.5))


def _left(graph: Graph, share: str) -> str:
    power = graph("Max", graph("Sub", graph.number(1.0), share), graph.number(_NO_POWER))
    return graph("Mul", graph("Log", power), graph.number(0.5))
