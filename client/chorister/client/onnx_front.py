"""What a voice file does before its network: log-mel, the source's statistics, the pitch moved.

Every function adds nodes to a graph; its numpy twin in `shared.voice` is named beside it, and the
tests hold the two against each other.
"""

from __future__ import annotations

import numpy as np

from chorister.client.onnx_dft import add_dft
from chorister.client.onnx_graph import Graph
from chorister.shared.voice import features
from chorister.shared.voice.frames import HOP_SAMPLES, hann
from chorister.shared.voice.model import HIGHEST_PITCH_HZ, LOWEST_PITCH_HZ, SPREAD_RATIO_LIMITS
from chorister.shared.voice.profile import (
    LOUD_PERCENTILE,
    QUARTILES_TO_SIGMA,
    SMALLEST_SPREAD,
    SPEECH_RANGE,
    SpeakerProfile,
)
from chorister.shared.voice.voicing import EARLY_BELOW_HZ

_EDGE = (features.WINDOW_SAMPLES - HOP_SAMPLES) // 2
_LATER = 1e9


def add_log_mel(graph: Graph, samples: str) -> str:
    """`features.log_mel`: value of shape (F * 160,) to (F, 80)."""
    padded = graph("Pad", samples, graph.ints(_EDGE, _EDGE))
    padded = graph("Unsqueeze", padded, graph.ints(0, 1))
    kernel = graph("Transpose", _windowed_dft(graph), perm=[1, 0])
    kernel = graph("Unsqueeze", kernel, graph.ints(1))
    spectrum = graph("Conv", padded, kernel, strides=[HOP_SAMPLES])
    spectrum = graph("Transpose", spectrum, perm=[0, 2, 1])
    return _mel_of(graph, graph("Squeeze", spectrum, graph.ints(0)))


def add_window_log_mel(graph: Graph, window: str) -> str:
    """The same for one frame's window: value of shape (400,) to (1, 80)."""
    row = graph("Unsqueeze", window, graph.ints(0))
    return _mel_of(graph, graph("MatMul", row, _windowed_dft(graph)))


def _windowed_dft(graph: Graph) -> str:
    """From a window to real and imaginary parts of its transform, shape (400, 514)."""
    window = hann(features.WINDOW_SAMPLES).astype(np.float64)[:, None]
    basis = add_dft(graph, features.WINDOW_SAMPLES)
    return graph.cast(graph("Mul", basis, graph.constant(window)), np.float32)


def _mel_of(graph: Graph, spectrum: str) -> str:
    """Real and imaginary parts, (F, 514), to log-mel, (F, 80)."""
    real, imaginary = graph.several("Split", 2, spectrum, axis=1, num_outputs=2)
    power = graph("Add", graph("Mul", real, real), graph("Mul", imaginary, imaginary))
    mel = graph("MatMul", graph("Sqrt", power), graph.constant(features.mel_filters()))
    return graph("Log", graph("Max", mel, graph.number(features.MEL_FLOOR)))


def add_mel_statistics(graph: Graph, log_mel: str) -> tuple[str, str]:
    """`profile.speech_frames`, mean and spread: (F, 80) to two values of shape (80,)."""
    level = graph("ReduceMean", log_mel, graph.ints(1), keepdims=0)
    frames = graph("Shape", level)
    ordered = _ascending(graph, level, frames)
    loud = _percentile(graph, ordered, frames, LOUD_PERCENTILE)
    speech = graph("Greater", level, graph("Sub", loud, graph.number(SPEECH_RANGE)))
    weight = graph("Unsqueeze", graph.cast(speech, np.float32), graph.ints(1))
    count = graph("ReduceSum", weight, keepdims=0)
    mean = graph(
        "Div", graph("ReduceSum", graph("Mul", log_mel, weight), graph.ints(0), keepdims=0), count
    )
    distance = graph("Mul", graph("Sub", log_mel, mean), weight)
    power = graph("ReduceSumSquare", distance, graph.ints(0), keepdims=0)
    return mean, graph("Sqrt", graph("Div", power, count))


def add_pitch_statistics(graph: Graph, f0_hz: str, target: SpeakerProfile) -> str:
    """Median and spread of log F0 as in `profile.profile_from`: (F,) to shape (2,), float64.

    Where nothing is voiced, the target's own: its pitch is then left as it is.
    """
    voiced = graph("Greater", f0_hz, graph.number(0.0))
    count = graph("ReduceSum", graph.cast(voiced, np.int64), graph.ints(0))
    log_f0 = graph("Log", graph.cast(graph("Max", f0_hz, graph.number(1.0)), np.float64))
    # Unvoiced frames are ordered behind all others, and not read there.
    later = graph.double(_LATER)
    ordered = _ascending(graph, graph("Where", voiced, log_f0, later), graph("Shape", f0_hz))
    counted = graph("Max", count, graph.ints(1))
    low, median, high = (_percentile(graph, ordered, counted, q) for q in (25.0, 50.0, 75.0))
    spread = graph("Div", graph("Sub", high, low), graph.double(QUARTILES_TO_SIGMA))
    spread = graph("Max", spread, graph.double(SMALLEST_SPREAD))
    found = graph("Concat", median, spread, axis=0)
    neutral = np.array([target.log_f0_median, target.log_f0_spread])
    some = graph("Greater", count, graph.ints(0))
    return graph("Where", some, found, graph.constant(neutral))


def add_given_or(graph: Graph, given: str, computed: str) -> str:
    """An input's values, or the computed ones where the input was left at its default, NaN."""
    return graph("Where", graph("IsNaN", given), computed, given)


def add_moved_pitch(
    graph: Graph,
    f0_hz: str,
    statistics: str,
    target: SpeakerProfile,
    pitch_st: str,
    intonation: str,
) -> str:
    """`model.move_pitch`, and a shift and a stretch on top.

    Args:
        graph: changed in place.
        f0_hz: value of shape (F,).
        statistics: value of shape (2,), float64, median and spread of the source's log F0.
        target: whose range the pitch moves to.
        pitch_st: value of shape (), semitones.
        intonation: value of shape (), how far the pitch moves about its median; 1 as spoken.
    """
    median = graph.part(statistics, 0, 1, 0)
    spread = graph.part(statistics, 1, 2, 0)
    low, high = SPREAD_RATIO_LIMITS
    ratio = graph("Div", graph.double(target.log_f0_spread), spread)
    ratio = graph("Clip", ratio, graph.double(low), graph.double(high))
    height = graph("Log", graph.cast(graph("Max", f0_hz, graph.number(1.0)), np.float64))
    height = graph("Mul", graph("Sub", height, median), ratio)
    height = graph("Mul", height, graph.cast(intonation, np.float64))
    shift = graph("Mul", graph.cast(pitch_st, np.float64), graph.double(np.log(2.0) / 12.0))
    centre = graph("Add", shift, graph.double(target.log_f0_median))
    moved = graph("Exp", graph("Add", height, centre))
    moved = graph("Clip", moved, graph.double(LOWEST_PITCH_HZ), graph.double(HIGHEST_PITCH_HZ))
    voiced = graph("Greater", f0_hz, graph.number(0.0))
    return graph("Where", voiced, graph.cast(moved, np.float32), graph.number(0.0))


def add_early_onsets(graph: Graph, f0_hz: str) -> str:
    """`voicing.early_onsets`: (F,) to (F,)."""
    none = graph.number(0.0)
    later = graph.part(f0_hz, 1, np.iinfo(np.int64).max, 0)
    following = graph("Concat", later, graph.constant(np.zeros(1, np.float32)), axis=0)
    deep = graph("Less", following, graph.number(EARLY_BELOW_HZ))
    begins = graph("And", graph("Greater", following, none), deep)
    early = graph("And", graph("LessOrEqual", f0_hz, none), begins)
    return graph("Where", early, following, f0_hz)


def _ascending(graph: Graph, values: str, count: str) -> str:
    return graph.several("TopK", 2, values, count, axis=0, largest=0)[0]


def _percentile(graph: Graph, ordered: str, count: str, percent: float) -> str:
    """numpy's 'linear' method over the first `count` (shape (1,)) of ordered values: shape (1,)."""
    last = graph("Sub", count, graph.ints(1))
    share = graph.constant(np.array(percent / 100.0))
    place = graph("Mul", graph.cast(last, np.float64), share)
    below = graph("Floor", place)
    fraction = graph("CastLike", graph("Sub", place, below), ordered)
    index = graph.cast(below, np.int64)
    lower = graph("Gather", ordered, index)
    upper = graph("Gather", ordered, graph("Min", graph("Add", index, graph.ints(1)), last))
    return graph("Add", lower, graph("Mul", graph("Sub", upper, lower), fraction))
