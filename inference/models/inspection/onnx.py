"""Facts about an ONNX model, from its inputs, outputs and metadata."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference.models.archives import ModelFileLimits
from inference.models.inspection.facts import FileFormat, ModelFacts, OutputFacts
from inference.models.inspection.suffixes import onnx_file
from inference.models.labels import try_labels

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
#: Names under which exporters store labels; `names` is that of Ultralytics.
_LABEL_KEYS = ("labels", "names", "classes", "class_names")
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Gemm": "linear", "MatMul": "linear"}
#: Dimensions of an output: batch, classes.
_OUTPUT_RANK = 2


def read_onnx(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Read the interface of a file, or of the one in a folder, with onnxruntime. Raises ConfigurationError, ImportError."""
    from inference.models.loading.onnx_files import OnnxFile  # noqa: PLC0415 imports onnxruntime, an extra

    inside = onnx_file(path) if path.is_dir() else None
    file = OnnxFile.open(inside or path, limits.max_bytes, has_folder=inside is not None)
    kind = next(iter(file.input_types), "")
    outputs = zip(file.output_names, file.output_shapes, strict=True)
    labels, labels_problem = try_labels(lambda: labels_of(file.metadata))
    return ModelFacts(
        format=FileFormat.ONNX,
        input_shapes=tuple(file.input_shapes),
        input_dtype=_DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")")),
        outputs=tuple(
            OutputFacts(name, shape[1] if len(shape) == _OUTPUT_RANK else None, _ACTIVATIONS.get(file.last_operation(number)))
            for number, (name, shape) in enumerate(outputs)
        ),
        labels=labels,
        labels_problem=labels_problem,
    )


def labels_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Read labels from metadata: a list or a mapping from class numbers, in JSON or Python, or a label on each line.

    Raises:
        ValueError: a mapping does not name the classes from 0 on, each once.
    """
    text = next((metadata[key] for key in _LABEL_KEYS if metadata.get(key)), "")
    found: Any = None
    with suppress(ValueError):
        found = json.loads(text)
    is_python = text.lstrip().startswith(("[", "{", "("))
    if found is None and is_python:
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = ast.literal_eval(text)
    if found is None and not is_python:
        found = text.splitlines() if "\n" in text.strip() else text.split(",")
    if isinstance(found, dict):
        found = _in_class_order(found)
    labels = [str(label).strip() for label in found] if isinstance(found, list | tuple) else []
    return tuple(labels) if labels and all(labels) else ()


def _in_class_order(by_number: Mapping[Any, Any]) -> list[Any]:
    """Sort labels by their class numbers; none for a mapping from anything else. Raises ValueError for a gap."""
    try:
        numbers = {int(number): label for number, label in by_number.items()}
    except (ValueError, TypeError):
        return []
    if missing := [number for number in range(len(by_number)) if number not in numbers]:
        raise ValueError(f"has {len(by_number)} labels in its metadata, and none for class {missing[0]}: classes count from 0")
    return [numbers[number] for number in range(len(by_number))]
