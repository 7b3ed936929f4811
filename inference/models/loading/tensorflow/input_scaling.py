"""Scaling of the pixels by the first operations of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.models.inspection.facts import InputScaling
from inference.models.inspection.value_range import PixelRange

_KEEPING = {"Identity", "Cast", "StopGradient", "EnsureShape", "ReverseV2", "Transpose", "Reshape", "Pad", "ResizeBilinear"}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Sub": np.subtract,
    "Add": np.add,
    "AddV2": np.add,
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
#: Far more operations than scale pixels.
_MAX_STEPS = 100


def input_scaling(function: Any) -> InputScaling | None:
    """Follow the pixels from the first input of `function`, a concrete function; None if no arithmetic on them was found."""
    definition = function.graph.as_graph_def()
    bodies = {found.signature.name: found for found in definition.library.function}
    constants = {
        inner.op.name: outer.numpy()
        for outer, inner in function.graph.captures
        if isinstance(outer, tf.Tensor) and outer.dtype != tf.resource
    }
    walk = _Walk(bodies)
    walk.follow(function.inputs[0].op.name, definition.node, constants)
    return walk.values.found()


class _Walk:
    def __init__(self, bodies: Mapping[str, Any]) -> None:
        self.values = PixelRange()
        self._bodies = bodies
        self._steps = 0

    def follow(self, tensor: str, nodes: Sequence[Any], constants: Mapping[str, NDArray[Any]]) -> None:
        """Follow a tensor in a graph or a function's body, into the functions that are called with it."""
        known = dict(constants) | {node.name: _constant(node) for node in nodes if node.op == "Const"}
        while (node := _only_consumer(tensor, nodes)) is not None and self._steps < _MAX_STEPS:
            self._steps += 1
            operands = [_name(operand) for operand in node.input if not operand.startswith("^")]
            if node.op in _CALLS:
                body = self._bodies[node.attr["f"].func.name]
                arguments = dict(zip(operands, (each.name for each in body.signature.input_arg), strict=True))
                inner = {arguments[name]: value for name, value in known.items() if name in arguments}
                self.follow(arguments[tensor], body.node_def, inner)
                return
            if node.op in _ARITHMETIC:
                if not self._apply(node, operands, tensor, known):
                    return
            elif node.op not in _KEEPING:
                return
            tensor = node.name

    def _apply(self, node: Any, operands: Sequence[str], tensor: str, known: Mapping[str, NDArray[Any]]) -> bool:
        other = next((name for name in operands if name != tensor), None)
        if other is None or other not in known:
            return False
        with suppress(ValueError):
            self.values.apply(_ARITHMETIC[node.op], known[other], "the graph", is_first=operands[0] == other)
            return True
        return False


def _only_consumer(tensor: str, nodes: Sequence[Any]) -> Any:
    found = [node for node in nodes if tensor in {_name(operand) for operand in node.input}]
    return found[0] if len(found) == 1 else None


def _name(operand: str) -> str:
    return operand.partition(":")[0]


def _constant(node: Any) -> NDArray[Any]:
    array: NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
    return array
