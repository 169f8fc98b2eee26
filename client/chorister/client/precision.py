"""A voice file with its weights in fewer bits: half as large, or less.

Weights alone are stored so; they become float32 when the file is loaded, and every number between
them is computed as in the full file. What phases and spectra are made of (fixed matrices, the
pitch, the pulses' phase) is never touched, nor is anything small.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from chorister.client.voice_card import UNSET_SHA256, seal_digest
from chorister.shared.errors import UsageError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
# Values whose names begin so are weights of the base and the adapters, and the target's sounds.
NETWORK = "network"
_MATRIX = f"{NETWORK}/weight_"
_FEWEST_VALUES = 1024
_LARGEST_INT8 = 127


def with_precision(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The same graph with its network's weights stored otherwise.

    fp16 rounds every table of the network to half precision. int8 rounds the matrices of its
    perceptrons to whole multiples of a scale for each output, and the other tables to half
    precision.

    Args:
        model: as `export` builds it, in full precision; it is not changed.
        precision: of the result.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if precision == "fp32":
        return made
    matrices = _matrices(model) if precision == "int8" else set()
    del made.graph.initializer[:], made.graph.node[:]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        large = values.size >= _FEWEST_VALUES and values.dtype == np.float32
        if not (large and tensor.name.startswith(f"{NETWORK}/")):
            made.graph.initializer.append(tensor)
        elif tensor.name in matrices:
            _store(made.graph, tensor.name, *_rounded(values))
        else:
            _store(made.graph, tensor.name, _half(values))
    made.graph.node.extend(model.graph.node)
    for entry in made.metadata_props:
        if entry.key == "precision":
            entry.value = precision
    return made


def _store(
    graph: Any, name: str, stored: NDArray[Any], scales: NDArray[np.float32] | None = None
) -> None:
    """Adds a table in few bits, and the nodes that make float32 of it under its own name."""
    whole = name if scales is None else f"{name}/whole"
    graph.initializer.append(numpy_helper.from_array(stored, f"{name}/stored"))
    graph.node.append(helper.make_node("Cast", [f"{name}/stored"], [whole], to=TensorProto.FLOAT))
    if scales is not None:
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}/scales"))
        graph.node.append(helper.make_node("Mul", [whole, f"{name}/scales"], [name]))


def reduced(voice: bytes, precision: Precision, name: str) -> bytes:
    """A voice file's content in another precision, with its own digest.

    Args:
        voice: a voice file in full precision, already checked.
        precision: of the result.
        name: what to call it in errors.

    Raises:
        UsageError: the file is not in full precision.
    """
    model = onnx.load_from_string(voice)
    entries = {entry.key: entry for entry in model.metadata_props}
    found = entries["precision"].value
    if found != "fp32":
        raise UsageError(
            "A voice is made smaller from its full form.",
            f"{name} in {found}",
            "Name the voice file that was exported first.",
        )
    entries["sha256"].value = UNSET_SHA256
    return seal_digest(with_precision(model, precision).SerializeToString(deterministic=True))


def _matrices(model: onnx.ModelProto) -> set[str]:
    """Names of the tables that layers of perceptrons multiply by."""
    return {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1].startswith(_MATRIX)
    }


def _rounded(matrix: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers and a scale for each column; their product is near the matrix."""
    scales = np.abs(matrix).max(axis=0) / _LARGEST_INT8
    scales[scales == 0.0] = 1.0
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def _half(values: NDArray[Any]) -> NDArray[np.float16]:
    largest = float(np.finfo(np.float16).max)
    return np.asarray(np.clip(values, -largest, largest), np.float16)
