"""Conversion of a TensorFlow graph for LiteRT, and the measured choice between the two."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.conversions import Choice, Converted, lite_model
from inference.models.loading.model import LITE, TENSORFLOW, LoadedModel
from inference.models.loading.tensorflow.graph import TracedModel, trace_model
from inference.models.loading.trial import LITE_TOLERANCE, is_equal
from inference.models.spec import ModelSpec
from inference.runtime.cpu import usable_cores

#: Ratio of TensorFlow's rate to LiteRT's from which it runs the model: less may be noise, and LiteRT needs less memory.
_CLEAR_GAIN = 1.1
#: Limit of the timed rounds of one batch size, of which there is at least one.
_TIMING_LIMIT_S = 0.25
_TIMED_ROUNDS = 5


def load_converted(spec: ModelSpec, traced: TracedModel) -> LoadedModel | str:
    """Convert a traced model within this process, without measuring; returns the reason if LiteRT cannot run it."""
    try:
        found = _convert(spec, traced)
    except (MemoryError, OSError) as error:
        return f"the conversion failed: {type(error).__name__}"
    return found if isinstance(found, str) else found[1]


def convert_measured(spec: ModelSpec, batch_sizes: Sequence[int]) -> Converted:
    """Convert the model of `spec`, and let the faster library run it on this CPU.

    Args:
        batch_sizes: the sizes of the service's batches, ascending; the first, the middle and the last are measured.

    Raises:
        ConfigurationError: see `graph.trace_model`.
        MemoryError, OSError: memory or a disk is full, which says nothing about the model.
    """
    traced = trace_model(spec)
    found = _convert(spec, traced)
    size, is_binary = traced.trial.output_size, traced.trial.is_binary
    if isinstance(found, str):
        return Converted(Choice(TENSORFLOW, found, size, is_binary), b"")
    content, lite = found
    measured = sorted({batch_sizes[0], batch_sizes[len(batch_sizes) // 2], batch_sizes[-1]})
    rates = _measure_rates({LITE: lite, TENSORFLOW: traced.loaded}, spec, measured)
    ratio = rates[LITE] / rates[TENSORFLOW]
    if ratio * _CLEAR_GAIN < 1:
        return Converted(Choice(TENSORFLOW, f"measured {1 / ratio:.1f} times LiteRT's rate", size, is_binary), b"")
    reason = f"measured {ratio:.1f} times TensorFlow's rate"
    return Converted(Choice(LITE, reason, size, is_binary), content)


def _convert(spec: ModelSpec, traced: TracedModel) -> tuple[bytes, LoadedModel] | str:
    """Convert and compare with TensorFlow's outputs for the trial images; returns the reason if LiteRT cannot run the graph."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.graph], traced.graph)
    try:
        content: bytes = converter.convert()
        graph = ConcurrentGraph(content, usable_cores())
    except (MemoryError, OSError):
        raise
    except Exception:  # noqa: BLE001 the converter raises anything; TensorFlow's own runtime is the alternative
        return "LiteRT lacks an operation of this model"
    lite = lite_model(spec, Choice(LITE, "", traced.trial.output_size, traced.trial.is_binary), graph)
    if not is_equal(lite.predict, traced.trial):
        return f"LiteRT's answers differ by more than {LITE_TOLERANCE:g}"
    return content, lite


def _measure_rates(models: Mapping[str, LoadedModel], spec: ModelSpec, sizes: Sequence[int]) -> dict[str, float]:
    """Measure each model's images per second at its fastest batch size, from its fastest round: other load only adds time."""
    best = dict.fromkeys(models, 0.0)
    for size in sizes:
        batch: Any = np.zeros((size, *spec.input.array_shape), spec.input.numpy_dtype)
        least_s = dict.fromkeys(models, math.inf)
        for model in models.values():
            model.predict(batch)  # the first call of a size is slower
        end = time.perf_counter() + _TIMING_LIMIT_S
        for _ in range(_TIMED_ROUNDS):
            for name, model in models.items():
                began = time.perf_counter()
                model.predict(batch)
                least_s[name] = min(least_s[name], time.perf_counter() - began)
            if time.perf_counter() >= end:
                break
        best = {name: max(best[name], size / least_s[name]) for name in models}
    return best
