"""Compilation of a model's files to one TensorFlow graph that fits its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.models.loading.device import CPU, Device
from inference.models.loading.fixed_batches import for_any_size
from inference.models.loading.model import TENSORFLOW, LoadedModel
from inference.models.loading.tensorflow.bounds import output_bounds
from inference.models.loading.tensorflow.readers import ReadModel, read_model
from inference.models.loading.trial import Trial, check_input, find_output, invalid_model_on_error, try_model
from inference.models.spec import ModelSpec


@dataclass(frozen=True)
class TracedModel:
    #: concrete function from images to a list with the model's output
    graph: Any
    trial: Trial
    #: the model, run by TensorFlow
    loaded: LoadedModel


def trace_model(spec: ModelSpec, device: Device = CPU) -> TracedModel:
    """Load the files of `spec` and trace its graph; weights and graph are on `device`.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    with tf.device(device.name):
        model = read_model(spec, half_precision=device.half_precision)
        check_input(spec, model.input_shapes)
        graph = _compile(model, spec)

    def run(batch: NDArray[Any]) -> NDArray[Any]:
        with tf.device(device.name):
            output: NDArray[Any] = graph(tf.constant(batch))[0].numpy()
            return output

    function = for_any_size(run, model.batch_size)
    trial = try_model(spec, function, partial(output_bounds, graph))
    activation = spec.output.activation
    loaded = LoadedModel(function, trial.output_size, TENSORFLOW, activation=activation, is_binary=trial.is_binary, keep=model)
    return TracedModel(graph, trial, loaded)


def _compile(model: ReadModel, spec: ModelSpec) -> Any:
    """Compile a concrete function from images in the description's dtype to a list with one output, floats as float32."""

    def classify(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = model.call(images)
        output = tf.nest.flatten(outputs)[find_output(spec, _output_names(outputs, model.output_names))]
        return [tf.cast(output, tf.float32) if output.dtype.is_floating else output]

    # Called directly: model.predict needs tens of milliseconds to start. Without AutoGraph: no layer needs it, and if the
    # process is killed, its source files remain in the temporary folder.
    signature = tf.TensorSpec((model.batch_size, *spec.input.array_shape), spec.input.dtype)
    function = tf.function(classify, input_signature=[signature], jit_compile=spec.xla or None, autograph=False)
    with invalid_model_on_error(spec):
        return function.get_concrete_function()


def _output_names(outputs: Any, known: Sequence[str]) -> Sequence[str]:
    """Name each of the outputs that `tf.nest.flatten` returns: by key, by Keras' name of its layer, or by number."""
    count = len(tf.nest.flatten(outputs))
    if isinstance(outputs, Mapping) and len(outputs) == count:
        return sorted(outputs)
    return known if len(set(known)) == count else [f"output_{number}" for number in range(count)]
