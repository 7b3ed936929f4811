"""LiteRT files (`.tflite`): graphs of floats, or of quantised integers with a scale and a zero point for each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.graph_files import Run, as_float, check_size, find_producer, one_row_per_image
from inference.models.loading.litert import LiteGraph
from inference.models.loading.model import LITE
from inference.models.pixel_scaling import MAX_PIXEL
from inference.models.spec import InputSpec, ModelSpec
from inference.runtime.cpu import usable_cores

_QUANTISED = (np.uint8, np.int8, np.int16)
_FLOATS = (np.float32, np.float16)
_KEEPING = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CAST", "QUANTIZE", "DEQUANTIZE"}
_ONNX_NAMES = {"LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}
#: Smallest share of the pixels' range that a quantised input must hold, and of its own range that the pixels must use.
_LEAST_HELD, _LEAST_USED = 0.5, 0.1


@dataclass(frozen=True)
class Quantisation:
    """Integers that stand for real values: value = (integer - zero_point) * scale."""

    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        return (int(np.iinfo(self.dtype).min) - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        return (int(np.iinfo(self.dtype).max) - self.zero_point) * self.scale

    def quantise(self, values: NDArray[Any]) -> NDArray[Any]:
        """Round values of any number type to the nearest integers; values out of range become the smallest or largest one."""
        limits = np.iinfo(self.dtype)
        steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        integers: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return integers

    def dequantise(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        return (integers.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class LiteFile:
    """A `.tflite` file, opened by LiteRT. Its operations are LiteRT's own: others, in plug-ins, are refused."""

    runtime = LITE

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._graph = ConcurrentGraph(content, usable_cores())

    @staticmethod
    def open(path: Path, max_bytes: int) -> LiteFile:
        """Read a file. Raises ConfigurationError if it is too large, ValueError or RuntimeError if it is no such file."""
        check_size(path, max_bytes)
        return LiteFile(path.read_bytes())

    @property
    def input_shapes(self) -> Sequence[tuple[int | None, ...]]:
        return self._graph.input_shapes

    @property
    def output_names(self) -> Sequence[str]:
        return self._graph.whole.output_names

    def function(self, spec: ModelSpec, output: int) -> Run:
        return self._function(self._graph, spec.input, output)

    def resized_function(self, spec: ModelSpec, output: int) -> Run | None:
        # a graph of its own: LiteRT cannot run a graph any more in which a new size has failed
        return self._function(LiteGraph(self._content, usable_cores()), spec.input, output)

    def output_step(self, output: int) -> float:
        quantisation = _quantisation(self._graph.whole.outputs[output])
        return quantisation.scale if quantisation else 0.0

    def last_operation(self, output: int) -> str:
        kind = find_producer(self._graph.whole.outputs[output]["index"], self._graph.whole.producers(), _KEEPING)
        return _ONNX_NAMES.get(kind, kind)

    def _function(self, graph: LiteGraph | ConcurrentGraph, spec: InputSpec, output: int) -> Run:
        tensor = self._graph.whole.inputs[0]
        quantisation = _input_quantisation(tensor, spec)
        result = _quantisation(self._graph.whole.outputs[output])

        def run(batch: NDArray[Any]) -> NDArray[Any]:
            images = quantisation.quantise(batch) if quantisation else batch.astype(tensor["dtype"], copy=False)
            values = graph(images, output)
            return one_row_per_image(result.dequantise(values) if result else as_float(values))

        return run


def _input_quantisation(tensor: Mapping[str, Any], spec: InputSpec) -> Quantisation | None:
    """Return the quantisation of images for the input tensor; None if they go in as they are, or only with another float type.

    Raises:
        ConfigurationError: the tensor's type cannot hold the images.
    """
    if tensor["dtype"] in _FLOATS or (tensor["dtype"] is np.uint8 and spec.dtype == "uint8"):
        return None
    quantisation = _quantisation(tensor)
    name = np.dtype(tensor["dtype"]).name
    if quantisation is None:
        hint = ": set input.dtype: uint8, without input.scale" if tensor["dtype"] is np.uint8 else ", and not float32 or uint8"
        raise ConfigurationError(f"takes {name} values without a scale{hint}", field="input.dtype")
    low, high = _pixel_range(spec)
    held = min(high, quantisation.high) - max(low, quantisation.low)
    if held < _LEAST_HELD * (high - low) or high - low < _LEAST_USED * (quantisation.high - quantisation.low):
        raise ConfigurationError(
            f"takes {name} for values from {quantisation.low:.4g} to {quantisation.high:.4g} (scale {quantisation.scale:.4g},"
            f" zero point {quantisation.zero_point}), and by the description pixels become {low:.4g} to {high:.4g}:"
            " set input.scale",
            field="input.scale",
        )
    return quantisation


def _pixel_range(spec: InputSpec) -> tuple[float, float]:
    """Compute the smallest and the largest value of pixels after scaling."""
    if spec.scaling is None:
        return 0.0, float(MAX_PIXEL)
    pairs = zip(spec.scaling.factors, spec.scaling.summands, strict=True)
    ends = [pixel * factor + summand for factor, summand in pairs for pixel in (0, MAX_PIXEL)]
    return min(ends), max(ends)


def _quantisation(tensor: Mapping[str, Any]) -> Quantisation | None:
    """Return the quantisation of a tensor; None if it has none, or one for each channel, as only weights have."""
    parameters = tensor["quantization_parameters"]
    if tensor["dtype"] not in _QUANTISED or len(parameters["scales"]) != 1 or not parameters["scales"][0] > 0:
        return None
    return Quantisation(np.dtype(tensor["dtype"]), float(parameters["scales"][0]), int(parameters["zero_points"][0]))
