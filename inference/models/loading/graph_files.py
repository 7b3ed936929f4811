"""Loading of models that are one graph in a file, `.tflite` or `.onnx`, each by its own library and without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.loading.fixed_batches import for_any_size
from inference.models.loading.model import LoadedModel
from inference.models.loading.outputs import Bounds
from inference.models.loading.problems import reason
from inference.models.loading.trial import check_input, find_output, is_equal, named_files, try_model
from inference.models.spec import ModelSpec
from inference.runtime.public_text import with_reason

#: Settings that change a graph or its device, which only TensorFlow can do.
_UNUSABLE_KEYS = ("weights_file", "mixed_precision", "xla")
_PROBABILITY_OPERATIONS = {"Sigmoid", "Softmax", "HardSigmoid"}

#: Takes (n, *array_shape) in the description's dtype, returns (n, …), quantised values as float32.
Run = Callable[[NDArray[Any]], NDArray[Any]]


class GraphFile(Protocol):
    """Graph of a file, opened by the library that runs it."""

    #: name of the library, for log lines and pages
    runtime: str

    @property
    def input_shapes(self) -> Sequence[tuple[int | None, ...]]:
        """Shapes of the inputs with the batch dimension; None for any size."""

    @property
    def output_names(self) -> Sequence[str]: ...

    def function(self, spec: ModelSpec, output: int) -> Run:
        """Return the function from images to an output, in the batch size of the file. Raises ConfigurationError."""

    def resized_function(self, spec: ModelSpec, output: int) -> Run | None:
        """Return the same for a file with a fixed batch size in any other size; None if the library cannot change it."""

    def output_step(self, output: int) -> float:
        """Return the difference between two values of a quantised output, else 0."""

    def last_operation(self, output: int) -> str:
        """Return the type of the operation that computes the output's values, named as ONNX does; empty if unknown."""


def load_graph_file(spec: ModelSpec, path: Path, open_graph: Callable[[Path, int], GraphFile]) -> LoadedModel:
    """Open the file and check that it fits the description.

    Args:
        open_graph: takes the path and the limit of the file's bytes.

    Raises:
        ConfigurationError: the file cannot be read, or does not fit its description.
    """
    _check_keys(spec, path.suffix.lower())
    graph = _open(spec, partial(open_graph, path, spec.max_unpacked_bytes))
    check_input(spec, graph.input_shapes)
    output = find_output(spec, graph.output_names)
    try:
        run = graph.function(spec, output)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.name}: the model in {named_files(spec)} {error.detail}", field=error.field) from error
    batch_size = graph.input_shapes[0][0]
    function = for_any_size(run, batch_size)
    step = graph.output_step(output)
    trial = try_model(spec, function, lambda: _bounds(graph.last_operation(output)), step)
    activation = spec.output.activation
    create = partial(
        LoadedModel,
        output_size=trial.output_size,
        runtime=graph.runtime,
        activation=activation,
        is_binary=trial.is_binary,
        output_step=step if activation is None else 0.0,
    )
    resized = None if batch_size is None else graph.resized_function(spec, output)
    if resized is not None and is_equal(create(resized).predict, trial):
        return create(resized)
    return create(function)


def one_row_per_image(values: NDArray[Any]) -> NDArray[Any]:
    """Remove further dimensions of size 1: (n, classes, 1, 1) of a convolution without Flatten becomes (n, classes)."""
    if values.ndim > 2 and values[:1].size == max(values.shape[1:]):  # noqa: PLR2004 (n, classes)
        return values.reshape(len(values), -1)
    return values


def find_producer(output: Any, producers: Mapping[Any, tuple[str, Any]], keeping: Collection[str]) -> str:
    """Find the type of the operation that computes an output, behind operations that only reshape or convert it.

    Args:
        producers: by tensor, type and first operand of the operation that returns it.
        keeping: types of operations that return the values of their first operand.
    """
    for _ in range(len(producers)):  # a hostile file may have a circle
        if output not in producers:
            break
        kind, operand = producers[output]
        if kind not in keeping:
            return kind
        output = operand
    return ""


def check_size(path: Path, max_bytes: int) -> None:
    """Raise ConfigurationError if the file is larger than model files may be."""
    size = path.stat().st_size
    if size > max_bytes:
        raise ConfigurationError(f"has {size} bytes, more than {max_bytes} (model_files.max_unpacked_mb)")


def as_float(values: NDArray[Any]) -> NDArray[Any]:
    """Convert floats of any width to float32; other values stay as they are."""
    return values.astype(np.float32, copy=False) if np.issubdtype(values.dtype, np.floating) else values


def _check_keys(spec: ModelSpec, suffix: str) -> None:
    for key in _UNUSABLE_KEYS:
        if getattr(spec, key):
            raise ConfigurationError(
                f"{spec.name}: {key} cannot be used with a {suffix} file, which has a fixed graph with its weights", field=key
            )
    if spec.device is not None and spec.device != "cpu":
        raise ConfigurationError(
            f"{spec.name}: device {spec.device}: {suffix} files run on the CPU only; leave device out", field="device"
        )
    if suffix == ".tflite" and not spec.litert:
        raise ConfigurationError(f"{spec.name}: litert: false, but only LiteRT runs a {suffix} file", field="litert")


def _open(spec: ModelSpec, open_graph: Callable[[], GraphFile]) -> GraphFile:
    location = spec.local_files["file"].location
    try:
        return open_graph()
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.name}: {location} {error.detail}", field="file") from error
    except Exception as error:
        sentence = f"{spec.name}: cannot read {location}"
        why = reason(error)
        raise ConfigurationError(f"{sentence}: {why}", public=with_reason(sentence, why), field="file") from error


def _bounds(operation: str) -> Bounds:
    """Return the bounds of an operation's values for any image, as far as its type says them."""
    low, high = (0.0, 1.0) if operation in _PROBABILITY_OPERATIONS else (-inf, inf)
    return Bounds(low, high, frozenset({operation} if operation else ()))
