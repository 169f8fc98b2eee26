"""F0 as a graph: the steps of `shared.voice.f0`, number for number.

The difference function is summed directly, (x[n] - x[n + lag])^2 in blocks of 32 samples that the
frames share: no transform, and in float32 closer to the truth than a difference of products.
"""

from __future__ import annotations

import numpy as np

from chorister.client.onnx_graph import Graph
from chorister.shared.types import SAMPLE_RATE_HZ
from chorister.shared.voice import f0
from chorister.shared.voice.frames import HOP_SAMPLES

# Greatest length that divides both the hop and the span.
_BLOCK = 32
# Blocks of a frame that the frame before had as well.
SHARED_BLOCKS = (f0.SPAN_SAMPLES - HOP_SAMPLES) // _BLOCK
_HOP_BLOCKS = HOP_SAMPLES // _BLOCK
_SPAN_BLOCKS = f0.SPAN_SAMPLES // _BLOCK
# Stands for an infinite cost beyond the outermost states, where a product needs a finite one.
_FAR = 1e6
_EDGE = (f0.SPAN_SAMPLES + f0.LONGEST_LAG - HOP_SAMPLES) // 2


def add_f0(graph: Graph, samples: str) -> str:
    """Adds the estimator.

    Args:
        graph: changed in place.
        samples: value of shape (F * 160,), float32, F at least 1.

    Returns:
        value of shape (F,), float32, Hz, 0 where unvoiced.
    """
    padded = graph("Pad", samples, graph.ints(_EDGE, _EDGE))
    difference = _normalised_difference(graph, padded)
    return add_refined(graph, difference, _best_path(graph, add_costs(graph, difference)))


def add_costs(graph: Graph, difference: str) -> str:
    """Cost of each voiced state: (F, 261) to (F, 128)."""
    octaves = np.log2(f0.HIGHEST_HZ / f0.state_hz())
    return graph(
        "Add",
        graph("MatMul", difference, graph.constant(f0.state_filters())),
        graph.constant((np.float32(f0.OCTAVE_COST) * octaves).astype(np.float32)),
    )


def _normalised_difference(graph: Graph, padded: str) -> str:
    """`f0.normalised_difference` with the samples around it: (F * 160 + 612,) to (F, 261)."""
    length = graph("Sub", graph("Shape", padded), graph.ints(f0.LONGEST_LAG))
    here = graph("Slice", padded, graph.ints(0), length, graph.ints(0))
    lag_body = Graph("lag")
    lag = lag_body.input("lag/lag", np.int64, [1])
    there = lag_body("Slice", padded, lag, lag_body("Add", lag, length), lag_body.ints(0))
    blocks = lag_body("Reshape", lag_body("Sub", here, there), lag_body.ints(-1, _BLOCK))
    squares = lag_body("ReduceSumSquare", blocks, lag_body.ints(1), keepdims=0)
    lag_body.output(squares, "lag/squares", np.float32, ["blocks"])
    lags = np.arange(1, f0.LONGEST_LAG + 1, dtype=np.int64)
    squares = graph(
        "Scan", graph.constant(lags[:, None]), num_scan_inputs=1, body=lag_body.body()
    )  # (260, blocks)
    return add_normalised(graph, squares)


def add_hop_squares(graph: Graph, samples: str) -> str:
    """Squared differences of one hop, summed over its blocks of 32 samples, for all lags at once.

    Args:
        graph: changed in place.
        samples: value of shape (160 + 260,), float32, the hop and what the lags reach of the next.

    Returns:
        value of shape (260, 5), lag by lag from 1.
    """
    lags, length = f0.LONGEST_LAG, HOP_SAMPLES + f0.LONGEST_LAG
    # Copies of the samples, end to end, cut into rows that are one longer: each row begins one
    # sample later than the row before it. In rows it is copied faster than sample by sample.
    copies = graph("Expand", samples, graph.ints(lags + 1, length))
    flat = graph("Reshape", copies, graph.ints(-1))
    shifted = graph.part(flat, 0, lags * (length + 1), 0)
    shifted = graph("Reshape", shifted, graph.ints(lags, length + 1))
    there = graph.part(shifted, 1, HOP_SAMPLES + 1, 1)
    apart = graph("Sub", there, graph.part(samples, 0, HOP_SAMPLES, 0))
    blocks = graph("Reshape", apart, graph.ints(lags, _HOP_BLOCKS, _BLOCK))
    return graph("ReduceSumSquare", blocks, graph.ints(2), keepdims=0)


def add_normalised(graph: Graph, squares: str) -> str:
    """Squared differences, (260, 11 + F * 5), to the normalised difference, (F, 261)."""
    lags = np.arange(1, f0.LONGEST_LAG + 1, dtype=np.int64)
    squares = graph("Unsqueeze", squares, graph.ints(0))
    mean = graph(
        "AveragePool", squares, kernel_shape=[_SPAN_BLOCKS], strides=[_HOP_BLOCKS]
    )  # (1, 260, F)
    total = graph("Mul", graph.cast(mean, np.float64), graph.double(_SPAN_BLOCKS))
    total = graph("Transpose", graph("Squeeze", total, graph.ints(0)), perm=[1, 0])
    total = graph("Add", total, graph.double(f0.QUIET * f0.SPAN_SAMPLES))
    running = graph("CumSum", total, graph.constant(np.array(1, np.int64)))
    # difference / (running / lag), the running mean's lag brought up
    scaled = graph("Mul", total, graph.constant(lags.astype(np.float64)))
    normal = graph.cast(graph("Div", scaled, running), np.float32)
    return graph("Pad", normal, graph.ints(0, 1, 0, 0), graph.number(1.0))


def _best_path(graph: Graph, costs: str) -> str:
    """Shape (F, 128) to (F,), int64, 128 for unvoiced."""
    ahead = graph.part(costs, 1, np.iinfo(np.int64).max, 0)
    unvoiced = graph.constant(np.array([f0.UNVOICED_COST], np.float32))
    first = graph("Squeeze", graph.part(costs, 0, 1, 0), graph.ints(0))
    voiced_end, unvoiced_end, came_from = graph.several(
        "Scan", 3, first, unvoiced, ahead, num_scan_inputs=1, body=_forward_step().body()
    )
    last = add_cheapest(graph, voiced_end, unvoiced_end)
    _, before = graph.several(
        "Scan",
        2,
        last,
        came_from,
        num_scan_inputs=1,
        scan_input_directions=[1],
        scan_output_directions=[1],
        body=_backward_step().body(),
    )
    return graph("Concat", graph("Squeeze", before, graph.ints(1)), last, axis=0)


def _forward_step() -> Graph:
    """One frame of the search as the body of a loop."""
    step = Graph("forward")
    voiced = step.input("forward/voiced", np.float32, [f0.STATES])
    unvoiced = step.input("forward/unvoiced", np.float32, [1])
    cost = step.input("forward/cost", np.float32, [f0.STATES])
    voiced, unvoiced, came_from = add_forward_step(step, voiced, unvoiced, cost)
    step.output(voiced, "forward/voiced_next", np.float32, [f0.STATES])
    step.output(unvoiced, "forward/unvoiced_next", np.float32, [1])
    step.output(came_from, "forward/came_from", np.int64, [f0.STATES + 1])
    return step


def add_forward_step(step: Graph, voiced: str, unvoiced: str, cost: str) -> tuple[str, str, str]:
    """One frame of the search: cheapest cost of every state, and the state before it.

    Args:
        step: changed in place.
        voiced: value of shape (128,), cost of the cheapest walk to each voiced state.
        unvoiced: value of shape (1,), the same for the unvoiced one.
        cost: value of shape (128,), of the frame.

    Returns:
        the new costs, as `voiced` and `unvoiced`; and each state's best one before it, (129,).
    """
    width = 2 * f0.WIDEST_STEP + 1
    padded = step("Pad", voiced, step.ints(f0.WIDEST_STEP, f0.WIDEST_STEP), step.number(_FAR))
    # A convolution with the identity reads all windows at once: row k is shifted by k, cost added.
    padded = step("Reshape", padded, step.ints(1, 1, -1))
    shifts = step.constant(np.eye(width, dtype=np.float32)[:, None])
    steps = f0.STEP_COST * np.abs(np.arange(width) - f0.WIDEST_STEP).astype(np.float32)
    reached = step("Conv", padded, shifts, step.constant(steps.astype(np.float32)))
    reached = step("Squeeze", reached, step.ints(0))  # (17, 128)
    best = step("ReduceMin", reached, step.ints(0), keepdims=0)
    nearest = step("ArgMin", reached, axis=0, keepdims=0)
    change = step.constant(np.array([f0.VOICING_CHANGE_COST], np.float32))
    onset = step("Add", unvoiced, change)
    starts = step("Less", onset, best)
    index = step.constant(np.arange(f0.STATES) - f0.WIDEST_STEP)
    moved = step("Add", nearest, index)
    came_from = step("Where", starts, step.ints(f0.STATES), moved)
    ending = step("Add", step("ReduceMin", voiced, step.ints(0)), change)
    loudest = step("ArgMin", voiced, axis=0)
    stays = step("LessOrEqual", unvoiced, ending)
    came_from_unvoiced = step("Where", stays, step.ints(f0.STATES), loudest)
    voiced = step("Add", step("Where", starts, onset, best), cost)
    own = step.constant(np.array([f0.UNVOICED_COST], np.float32))
    unvoiced = step("Add", step("Min", unvoiced, ending), own)
    base = step("Min", unvoiced, step("ReduceMin", voiced, step.ints(0)))
    pointers = step("Concat", came_from, came_from_unvoiced, axis=0)
    return step("Sub", voiced, base), step("Sub", unvoiced, base), pointers


def add_cheapest(graph: Graph, voiced: str, unvoiced: str) -> str:
    """The state that the cheapest walk ends in: costs (128) and (1) to (1), int64."""
    lowest = graph("ReduceMin", voiced, graph.ints(0))
    ends_voiced = graph("Less", lowest, unvoiced)
    nearest = graph("ArgMin", voiced, axis=0)
    return graph("Where", ends_voiced, nearest, graph.ints(f0.STATES))


def _backward_step() -> Graph:
    step = Graph("backward")
    state = step.input("backward/state", np.int64, [1])
    came_from = step.input("backward/came_from", np.int64, [f0.STATES + 1])
    before = step("Gather", came_from, state)
    step.output(before, "backward/next", np.int64, [1])
    step.output(before, "backward/before", np.int64, [1])
    return step


def add_refined(graph: Graph, difference: str, path: str) -> str:
    """Parabola around the nearest minimum: (F, 261) and (F,) to Hz, shape (F,)."""
    voiced = graph("Less", path, graph.ints(f0.STATES))
    # Rows for the unvoiced state are computed as well and thrown away.
    lags = np.rint(SAMPLE_RATE_HZ / f0.state_hz()).astype(np.int64)
    near = np.clip(np.append(lags, 2)[:, None] + np.arange(-3, 4), 2, f0.LONGEST_LAG - 1)
    near_lags = graph("Gather", graph.constant(near), path)  # (F, 7)
    nearby = graph("GatherElements", difference, near_lags, axis=1)
    lag = graph("GatherElements", near_lags, graph("ArgMin", nearby, axis=1), axis=1)  # (F, 1)
    before, here, after = (
        graph("GatherElements", difference, graph("Add", lag, graph.ints(offset)), axis=1)
        for offset in (-1, 0, 1)
    )
    curve = graph("Add", graph("Sub", before, graph("Mul", here, graph.number(2.0))), after)
    curve = graph("Max", curve, graph.number(1e-9))
    shift = graph("Div", graph("Mul", graph("Sub", before, after), graph.number(0.5)), curve)
    shift = graph("Clip", shift, graph.number(-0.5), graph.number(0.5))
    period = graph("Add", graph.cast(lag, np.float64), graph.cast(shift, np.float64))
    hz = graph("Div", graph.double(SAMPLE_RATE_HZ), period)
    hz = graph(
        "Clip", graph.cast(hz, np.float32), graph.number(f0.LOWEST_HZ), graph.number(f0.HIGHEST_HZ)
    )
    return graph("Where", voiced, graph("Squeeze", hz, graph.ints(1)), graph.number(0.0))
