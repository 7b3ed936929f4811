"""Compilation of a model's files to one TensorFlow graph that fits its description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.models.loading.device import CPU, Device
from inference.models.loading.model import TENSORFLOW, LoadedModel
from inference.models.loading.tensorflow.bounds import output_bounds
from inference.models.loading.tensorflow.readers import read_model
from inference.models.loading.trial import Trial, check_input, invalid_model_on_error, try_model
from inference.models.spec import ModelSpec


@dataclass(frozen=True)
class TracedModel:
    #: concrete function from images to the list of the model's outputs
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
        graph = _compile(model.call, spec)
        trial = try_model(
            spec, lambda images: [output.numpy() for output in graph(tf.constant(images))], partial(output_bounds, graph)
        )

    def run(batch: NDArray[Any]) -> tf.Tensor:
        with tf.device(device.name):
            return graph(tf.constant(batch))[0]

    loaded = LoadedModel(run, trial.output_size, TENSORFLOW, activation=trial.activation, is_binary=trial.is_binary, keep=model)
    return TracedModel(graph, trial, loaded)


def _compile(call: Callable[[tf.Tensor], Any], spec: ModelSpec) -> Any:
    """Compile a concrete function from images in the description's dtype to the list of `call`'s outputs, floats as float32."""

    def classify(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = tf.nest.flatten(call(images))
        return [tf.cast(output, tf.float32) if output.dtype.is_floating else output for output in outputs]

    # Called directly: model.predict needs tens of milliseconds to start. Without AutoGraph: no layer needs it, and if the
    # process is killed, its source files remain in the temporary folder.
    signature = tf.TensorSpec((None, *spec.input.array_shape), spec.input.dtype)
    function = tf.function(classify, input_signature=[signature], jit_compile=spec.xla or None, autograph=False)
    with invalid_model_on_error(spec):
        return function.get_concrete_function()
