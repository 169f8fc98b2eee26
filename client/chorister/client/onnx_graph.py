"""A small builder of ONNX graphs: an operator a call, constants where they are used.

The parts of a voice file that are loops or statistics (F0, calibration) are written with it;
torch's exporter writes the network. Both end in one graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
# Overridable defaults of inputs came with version 4; 9 is what opset 18 needs at least.
IR_VERSION = 9
_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.bool_): TensorProto.BOOL,
}


# From here on a constant is a table: worth a name, and to be kept once.
_TABLE_VALUES = 64


class Graph:
    """A graph under construction; its values are known by their names.

    Args:
        name: prefix of every value made here, so that graphs can be joined.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._made = 0

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = self._new("constant")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        """Add a vector of int64, shape (N,), and return its name."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """Add a float32 scalar and return its name."""
        return self.constant(np.array(value, np.float32))

    def double(self, value: float) -> str:
        """Add a float64 scalar and return its name."""
        return self.constant(np.array(value, np.float64))

    def input(
        self, name: str, kind: type, shape: Sequence[int | str], default: NDArray[Any] | None = None
    ) -> str:
        """Add an input; one with a default need not be fed."""
        self.inputs.append(helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], list(shape)))
        if default is not None:
            self.initializers.append(numpy_helper.from_array(default.astype(kind), name))
        return name

    def output(self, value: str, name: str, kind: type, shape: Sequence[int | str]) -> None:
        """Give a value out under a name of its own."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(
            helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], list(shape))
        )

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node of several outputs and return their names."""
        names = [self._new(operator) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def cast(self, value: str, kind: type) -> str:
        """Convert a value to another type."""
        return self("Cast", value, to=_TYPES[np.dtype(kind)])

    def part(self, value: str, start: int, end: int, axis: int) -> str:
        """Cut values `start` to `end` out of one axis."""
        return self("Slice", value, self.ints(start), self.ints(end), self.ints(axis))

    def body(self) -> Any:
        """The graph as the body of a loop; values of the graph around it are visible in it."""
        return helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, initializer=self.initializers
        )

    def include(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, str],
        part: str,
        known: Sequence[tuple[NDArray[Any], str]] = (),
    ) -> list[str]:
        """Copy a model's graph into this one.

        Args:
            model: of the same opset; the names inside it get a prefix.
            feeds: which value of this graph feeds each input of that one.
            part: names its tables: 'part/NAME' where torch knows a name, else 'part/weight_1' and
                so on.
            known: tables that this graph has already, with the names of the values.

        Returns:
            names of its outputs in this graph.
        """
        inner = model.graph
        initialized = {tensor.name for tensor in inner.initializer}
        names = dict(feeds)
        given = [value.name for value in inner.input if value.name not in initialized]
        if set(given) != set(feeds):
            raise ValueError(f"inputs {sorted(given)} are not the feeds {sorted(feeds)}")
        for node in inner.node:
            if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
                raise ValueError(f"a graph with a loop cannot be included: {node.op_type}")
        tables = {tensor.name: tensor for tensor in inner.initializer}
        constants = [node for node in inner.node if _is_table(node)]
        tables |= {node.output[0]: node.attribute[0].t for node in constants}
        # Torch writes a table once for every use.
        written = {_content(table): name for table, name in known}
        for name, tensor in tables.items():
            content = _content(numpy_helper.to_array(tensor))
            if content in written:
                names[name] = written[content]
                continue
            named = name in initialized and "::" not in name
            names[name] = f"{part}/{name}" if named else f"{part}/weight_{len(written)}"
            written[content] = names[name]
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            copied.name = names[name]
            self.initializers.append(copied)
        nodes = [node for node in inner.node if not _is_table(node)]
        for node in nodes:
            names |= {name: self._new(node.op_type) for name in node.output if name}
        for node in nodes:
            moved = onnx.NodeProto()
            moved.CopyFrom(node)
            moved.name = ""
            moved.input[:] = [names[name] if name else "" for name in node.input]
            moved.output[:] = [names[name] if name else "" for name in node.output]
            self.nodes.append(moved)
        return [names[value.name] for value in inner.output]

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model with its metadata.

        Raises:
            onnx.checker.ValidationError: the graph is not sound.
        """
        model = helper.make_model(
            self.body(),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="chorister",
        )
        helper.set_model_props(model, dict(sorted(metadata.items())))
        onnx.checker.check_model(model)
        return model

    def _new(self, kind: str) -> str:
        self._made += 1
        return f"{self.name}/{kind}_{self._made}"


def _is_table(node: onnx.NodeProto) -> bool:
    if node.op_type != "Constant" or node.attribute[0].name != "value":
        return False
    return int(np.prod(node.attribute[0].t.dims)) >= _TABLE_VALUES


def _content(table: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return table.dtype.str, table.shape, table.tobytes()
