"""Facts about a SavedModel from its signature. Imports TensorFlow, so only the process that ends imports this module."""

from __future__ import annotations

from pathlib import Path

from inference.models.inspection.facts import FileFormat, ModelFacts
from inference.models.loading.tensorflow import saved_model
from inference.models.loading.tensorflow.bounds import output_bounds
from inference.models.loading.tensorflow.input_scaling import input_scaling

#: Operations that end a graph, with the name of the activation.
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "BiasAdd": "linear", "MatMul": "linear"}


def read_saved_model(folder: Path) -> ModelFacts:
    """Read the signature `serving_default`. Raises ConfigurationError, and the errors of TensorFlow."""
    signature = saved_model.read_signature(folder)
    function = signature.function
    outputs = function.outputs
    shape = outputs[0].shape if len(outputs) == 1 and outputs[0].shape.rank in {1, 2} else None
    sources = output_bounds(function).sources
    return ModelFacts(
        format=FileFormat.SAVED_MODEL,
        input_shapes=tuple(tuple(found) for found in signature.input_shapes),
        input_dtype=function.inputs[0].dtype.name if function.inputs else "float32",
        output_count=len(outputs),
        classes=None if shape is None else 1 if shape.rank == 1 else shape[1],
        activation=_ACTIVATIONS.get(next(iter(sources))) if len(sources) == 1 else None,
        scaling=input_scaling(function) if function.inputs else None,
    )
