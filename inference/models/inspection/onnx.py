"""Facts about an ONNX model, from its inputs, outputs and metadata."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference.models.inspection.facts import FileFormat, ModelFacts, Size

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
#: Names under which exporters store labels; `names` is that of Ultralytics.
_LABEL_KEYS = ("labels", "names", "classes", "class_names")
_ERRORS_ONLY = 3


def read_onnx(path: Path) -> ModelFacts:
    """Read the model's interface with onnxruntime. Raises the errors of onnxruntime, and ImportError without it."""
    import onnxruntime  # type: ignore[import-untyped] # noqa: PLC0415 an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    last = outputs[0].shape if outputs else []
    kind = inputs[0].type if inputs else ""
    return ModelFacts(
        format=FileFormat.ONNX,
        input_shapes=tuple(_sizes(found.shape) for found in inputs),
        input_dtype=_DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")")),
        output_count=len(outputs),
        classes=_sizes(last)[1] if len(last) == _RANK else None,
        labels=labels_of(session.get_modelmeta().custom_metadata_map),
    )


#: Dimensions of an output: batch, classes.
_RANK = 2


def labels_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Read labels from metadata: a list or a mapping from class numbers, in JSON or Python, or a label on each line."""
    text = next((metadata[key] for key in _LABEL_KEYS if metadata.get(key)), "")
    found: Any = None
    with suppress(ValueError):
        found = json.loads(text)
    if found is None and text.lstrip().startswith(("[", "{", "(")):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = ast.literal_eval(text)
    if found is None:
        found = text.splitlines() if "\n" in text.strip() else text.split(",")
    if isinstance(found, dict):
        with suppress(ValueError, TypeError):
            found = [label for _, label in sorted((int(number), label) for number, label in found.items())]
    labels = [str(label).strip() for label in found] if isinstance(found, list | tuple) else []
    return tuple(labels) if labels and all(labels) else ()


def _sizes(shape: Any) -> tuple[Size, ...]:
    """Replace names of open dimensions by None."""
    return tuple(size if isinstance(size, int) else None for size in shape)
