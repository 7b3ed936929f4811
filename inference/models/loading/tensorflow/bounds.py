"""Bounds of a graph's output for any image: the outputs for a few images do not distinguish a probability from a logit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

from inference.models.loading.outputs import Bounds

#: Operations with bounded values for all operands. Keras builds its hard sigmoid from Relu6.
_RANGES = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Softsign": (-1.0, 1.0), "Relu6": (0.0, 6.0)}
_FIRST = slice(1)
#: Operations that return values of these operands, all or some of them, or values between them.
_KEEPING = {
    **dict.fromkeys(("Identity", "Cast", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape"), _FIRST),
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims", "Transpose", "FakeQuantWithMinMaxVars"), _FIRST),
    **dict.fromkeys(("StridedSlice", "Slice", "GatherV2", "SplitV", "Unpack"), _FIRST),
    **dict.fromkeys(("Mean", "Max", "Min", "AvgPool", "MaxPool", "TopKV2"), _FIRST),
    "Split": slice(1, 2),
    "SelectV2": slice(1, 3),
    "ConcatV2": slice(-1),
    "Pack": slice(None),
}
#: Operations that reach their maximum and minimum at the ends of their operands' bounds.
_ARITHMETIC = {
    "Add": np.add,  # of TensorFlow 1
    "AddV2": np.add,
    "BiasAdd": np.add,
    "Sub": np.subtract,
    "Neg": np.negative,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


@dataclass(frozen=True)
class _Body:
    """Operations by name, of a graph or of a function at one of its calls.

    Args:
        arguments: for each argument of the function, the tensor that the call passes, and the body that contains this tensor.
    """

    operations: Mapping[str, Any]
    arguments: Mapping[str, tuple[str, _Body]]


def output_bounds(graph: Any) -> Bounds:
    """Find the bounds of the first output of `graph`, a concrete function.

    A graph consists of operations, and each operation names its operands, the tensors that it takes. The search begins at
    the operation that returns the output and goes back from each operation to its operands, and into the body of a function
    at a call, until it finds operations with bounds of their own, such as Sigmoid, or an unknown one, such as MatMul. The
    bounds of each operation on the way follow from those of its operands: 1 - Sigmoid has the bounds 0 and 1.

    Clipping does not give a value bounds here: a logit that is clipped to 0 and 1 is not a probability.
    """
    definition = graph.graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    return _Walk(functions).bounds(graph.outputs[0].name, _Body({node.name: node for node in definition.node}, {}))


class _Walk:
    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions

    def bounds(self, tensor: str, body: _Body) -> Bounds:
        """Find the bounds of `tensor`: the name of an argument, or of an operation with its output's number after a colon."""
        if tensor in body.arguments:
            return self.bounds(*body.arguments[tensor])
        name, *output = tensor.split(":")
        number, operation = int(output[-1]) if output else 0, body.operations[name]
        operands = [operand for operand in operation.input if not operand.startswith("^")]  # control inputs only define the order
        if operation.op in _CALLS:
            return self._call_bounds(operation.attr["f"].func.name, operands, number, body)
        if operation.op == "IdentityN":
            return self.bounds(operands[number], body)
        if operation.op == "Const":
            return _constant_bounds(operation)
        return self._operation_bounds(operation.op, operands, body)

    def _operation_bounds(self, kind: str, operands: Sequence[str], body: _Body) -> Bounds:
        if kind in _RANGES:
            return Bounds(*_RANGES[kind], frozenset({kind}))
        if kind not in {*_KEEPING, *_ARITHMETIC, "Sum"}:
            return _unknown(kind)
        found = []
        for operand in operands[_KEEPING.get(kind, _FIRST if kind == "Sum" else slice(None))]:
            found.append(self.bounds(operand, body))
            if not found[-1].are_known:
                return found[-1]
        return _combine(kind, found)

    def _call_bounds(self, name: str, operands: Iterable[str], number: int, body: _Body) -> Bounds:
        function = self._functions[name]
        arguments = {
            argument.name: (operand, body) for argument, operand in zip(function.signature.input_arg, operands, strict=True)
        }
        inner = _Body({node.name: node for node in function.node_def}, arguments)
        return self.bounds(function.ret[function.signature.output_arg[number].name], inner)


def _combine(kind: str, operands: Sequence[Bounds]) -> Bounds:
    """Compute the bounds of an operation from those of its operands, which are known."""
    sources = frozenset[str]().union(*(operand.sources for operand in operands))
    ends = [(operand.low, operand.high) for operand in operands]
    if kind in _KEEPING:
        return Bounds(min(low for low, _ in ends), max(high for _, high in ends), sources)
    if kind == "Sum":  # of probabilities of some classes, weighted or not; bounds of other sums are unknown
        return operands[0] if sources == {"Softmax"} and ends[0][0] >= 0 and ends[0][1] <= 1 else _unknown(kind)
    if kind == "RealDiv" and ends[1][0] <= 0 <= ends[1][1]:
        return _unknown(kind)
    values = [float(_ARITHMETIC[kind](*chosen)) for chosen in product(*ends)]
    return Bounds(min(values), max(values), sources)


def _constant_bounds(operation: Any) -> Bounds:
    values = tf.make_ndarray(operation.attr["value"].tensor)
    if not values.size or values.dtype.kind in "OSU":
        return _unknown("Const")
    return Bounds(float(values.min()), float(values.max()), frozenset())


def _unknown(kind: str) -> Bounds:
    return Bounds(-inf, inf, frozenset({kind}))
