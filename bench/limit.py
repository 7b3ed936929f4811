"""`python -m bench.limit FOLDER IMAGE`: speed of the model in process, as JSON on standard output.

One image again and again: no HTTP, no decoding, no queue. With TensorFlow's own runtime, the limit that all contenders are
compared with, and with LiteRT, in which this service runs the same graph if it can.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.workload import BATCH_SIZES, LITERT, model_of
from inference.imaging import ImageLimits, decode_into, inspect
from inference.models.loading import load_model, warm_up
from inference.models.spec import ModelSpec

_SECONDS = 3.0


def measure(folder: Path, image: Path) -> dict[str, Any]:
    """Measure images per second, and p50 and p99 of a call in ms, by batch size; the same with LiteRT; and the prediction."""
    spec = model_of(folder)
    array = _decode(spec, image.read_bytes())
    return _run(spec, array) | {LITERT: _run(model_of(folder, litert=True), array)}


def _run(spec: ModelSpec, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    model = load_model(spec)
    warm_up(model, spec, BATCH_SIZES)
    figures: dict[str, Any] = {"prediction": model.predict(array[None])[0].tolist()}
    for size in BATCH_SIZES:
        batch = np.repeat(array[None], size, axis=0)
        times = []
        end = time.perf_counter() + _SECONDS
        while (began := time.perf_counter()) < end:
            model.predict(batch)
            times.append(time.perf_counter() - began)
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        figures[str(size)] = {"images_per_s": size * len(times) / sum(times), "p50_ms": float(p50), "p99_ms": float(p99)}
    return figures


def _decode(spec: ModelSpec, data: bytes) -> np.ndarray[Any, Any]:
    limits = ImageLimits(50_000_000)
    is_raw = len(data) == spec.input.bytes_per_image
    shape, dtype = (list(spec.input.shape), spec.input.dtype) if is_raw else (None, None)
    header = inspect(data, shape=shape, dtype=dtype, content_type=None, spec=spec.input, limits=limits)
    array = np.zeros(spec.input.shape, spec.input.numpy_dtype)
    decode_into(array, data, header, spec.input, limits)
    return array


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
