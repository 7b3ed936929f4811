"""Facts about a SavedModel from its signature. Imports TensorFlow, so only the process that ends imports this module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.models.inspection.facts import FileFormat, ModelFacts, OutputFacts
from inference.models.loading.tensorflow import saved_model
from inference.models.loading.tensorflow.bounds import output_bounds
from inference.models.loading.tensorflow.input_scaling import input_scaling

#: Operations that end a graph, with the name of the activation.
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "BiasAdd": "linear", "MatMul": "linear"}


def read_saved_model(folder: Path) -> ModelFacts:
    """Read the signature `serving_default`. Raises ConfigurationError, and the errors of TensorFlow."""
    signature = saved_model.read_signature(folder)
    function = signature.function
    return ModelFacts(
        format=FileFormat.SAVED_MODEL,
        input_shapes=tuple(tuple(found) for found in signature.input_shapes),
        input_dtype=function.inputs[0].dtype.name if function.inputs else "float32",
        outputs=_outputs(function),
        scaling=input_scaling(function) if function.inputs else None,
    )


def _outputs(function: Any) -> tuple[OutputFacts, ...]:
    """Describe the outputs; the activation is that of the only one, since `output_bounds` follows one."""
    tensors = function.outputs
    named = function.structured_outputs
    names = sorted(named) if isinstance(named, Mapping) and len(named) == len(tensors) else [""] * len(tensors)
    sources = output_bounds(function).sources if len(tensors) == 1 else set()
    activation = _ACTIVATIONS.get(next(iter(sources))) if len(sources) == 1 else None
    return tuple(OutputFacts(name, _classes(tensor.shape), activation) for name, tensor in zip(names, tensors, strict=True))


def _classes(shape: Any) -> int | None:
    if shape.rank not in {1, 2}:
        return None
    size: int | None = 1 if shape.rank == 1 else shape[1]
    return size
