"""Facts about a LiteRT model (`.tflite`) from its flat buffer, and labels from the archive of its metadata."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import ConfigurationError
from inference.models.archives import ModelFileLimits, check_archive, read_member
from inference.models.inspection.facts import FileFormat, InputScaling, ModelFacts, OutputFacts
from inference.models.inspection.value_range import PixelRange
from inference.models.labels import read_labels, try_labels

_IDENTIFIER = b"TFL3"
_MAX_LABELS_BYTES = 2**24
_ARITHMETIC = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}
_KEEPING = {"DEQUANTIZE", "QUANTIZE", "CAST", "RESHAPE", "PAD", "TRANSPOSE"}
_ACTIVATIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "FULLY_CONNECTED": "linear"}
_AFTER_ACTIVATION = {"DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST"}


def read_litert(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Read the first subgraph. Raises ConfigurationError, and any error for a damaged file; ImportError without LiteRT."""
    if path.stat().st_size > limits.max_bytes:
        raise ConfigurationError(f"has more than {limits.max_bytes} bytes (model_files.max_unpacked_mb)")
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise ConfigurationError("is not a LiteRT file")
    graph = _Graph(content)
    inputs = [graph.tensor(number) for number in graph.inputs]
    labels, labels_problem = try_labels(lambda: _packed_labels(path, limits))
    return ModelFacts(
        format=FileFormat.LITERT,
        input_shapes=tuple(_shape(tensor) for tensor in inputs),
        input_dtype=graph.type_name(inputs[0]) if inputs else "float32",
        input_range=graph.quantised_range(inputs[0]) if inputs else None,
        outputs=tuple(graph.output(number) for number in graph.outputs),
        scaling=graph.scaling() if inputs else None,
        labels=labels,
        labels_problem=labels_problem,
    )


class _Graph:
    """First subgraph of a model."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped] # noqa: PLC0415 an extra

        self._types = _names(schema.TensorType)
        self._operators = _names(schema.BuiltinOperator)
        self._model = schema.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)
        self.inputs = [int(number) for number in self._graph.InputsAsNumpy()]
        self.outputs = [int(number) for number in self._graph.OutputsAsNumpy()]
        self._steps = [self._graph.Operators(number) for number in range(self._graph.OperatorsLength())]

    def tensor(self, number: int) -> Any:
        return self._graph.Tensors(number)

    def type_name(self, tensor: Any) -> str:
        return self._types.get(tensor.Type(), "unknown").lower()

    def quantised_range(self, tensor: Any) -> tuple[float, float] | None:
        """Return the real values of the smallest and the largest integer; None for other types than int8."""
        found = tensor.Quantization()
        if self.type_name(tensor) != "int8" or found is None or found.ScaleLength() != 1:
            return None
        scale, zero_point = float(found.Scale(0)), int(found.ZeroPoint(0))
        return (-128 - zero_point) * scale, (127 - zero_point) * scale

    def output(self, number: int) -> OutputFacts:
        """Describe an output by the number of its tensor."""
        sizes: Any = self.tensor(number).ShapeAsNumpy()
        return OutputFacts(self._output_name(number), int(sizes[-1]) if np.size(sizes) else None, self._activation(number))

    def _output_name(self, number: int) -> str:
        """Return the output's name in the file's only signature, or that of its tensor if it has none or several."""
        if self._model.SignatureDefsLength() == 1:
            signature = self._model.SignatureDefs(0)
            named = [signature.Outputs(place) for place in range(signature.OutputsLength())]
            for tensor in named:
                if tensor.TensorIndex() == number:
                    return str(tensor.Name().decode())
        return str(self.tensor(number).Name().decode())

    def _activation(self, wanted: int) -> str | None:
        """Find the activation that gives an output."""
        for step in reversed(self._steps):
            if wanted not in step.OutputsAsNumpy():
                continue
            kind = self._kind(step)
            if kind not in _AFTER_ACTIVATION:
                return _ACTIVATIONS.get(kind)
            wanted = step.Inputs(0)
        return None

    def scaling(self) -> InputScaling | None:
        """Follow the pixels to the first operation that computes more than a scaling."""
        values, wanted = PixelRange(), self.inputs[0]
        for step in self._steps:
            operands = [int(number) for number in step.InputsAsNumpy()]
            if wanted not in operands:
                continue
            kind = self._kind(step)
            if kind in _ARITHMETIC:
                other = next((number for number in operands if number != wanted), None)
                constant = None if other is None else self._constant(other)
                if constant is None:
                    break
                with suppress(ValueError):
                    values.apply(_ARITHMETIC[kind], constant, kind, is_first=operands[0] == other)
            elif kind not in _KEEPING:
                break
            wanted = int(step.Outputs(0))
        return values.found()

    def _kind(self, step: Any) -> str:
        code = self._model.OperatorCodes(step.OpcodeIndex())
        return self._operators.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")

    def _constant(self, number: int) -> Any:
        tensor = self.tensor(number)
        buffer = self._model.Buffers(tensor.Buffer())
        if self.type_name(tensor) != "float32" or not buffer.DataLength():
            return None
        return np.frombuffer(buffer.DataAsNumpy().tobytes(), "<f4")


def _names(enumeration: Any) -> Mapping[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _shape(tensor: Any) -> tuple[int | None, ...]:
    """Return the sizes of the signature, in which -1 is open, or those of the tensor."""
    sizes: Any = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
    return tuple(None if size < 0 else int(size) for size in np.atleast_1d(sizes))


def _packed_labels(path: Path, limits: ModelFileLimits) -> tuple[str, ...]:
    """Read the label file among the associated files, which are an archive behind the flat buffer.

    Raises:
        ValueError: the label file cannot be used.
        ConfigurationError: the archive is refused.
    """
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        names = [file.filename for file in check_archive(archive, limits) if file.filename.lower().endswith(".txt")]
        chosen = [name for name in names if "label" in name.lower()] or names
        if len(chosen) != 1:
            return ()
        try:
            return read_labels(read_member(archive, chosen[0], max_bytes=_MAX_LABELS_BYTES))
        except ValueError as error:
            raise ValueError(f"has a {chosen[0]} in it that {error}") from error
