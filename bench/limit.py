"""`python -m bench.limit FOLDER IMAGE`: speed of the model in process, as JSON on standard output.

One image again and again: no HTTP, no queue. With TensorFlow's own runtime, the limit that all contenders are compared
with, and with LiteRT, in which this service runs the same graph if it can; both without decoding. A photo also with
decoding and LiteRT, on the same cores, which is the limit of this service for photos.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.workload import BATCH_SIZES, DECODING, LITERT, model_of
from inference.domain import ImageFormat, ImageHeader
from inference.imaging import ImageLimits, decode_into, inspect
from inference.models.loading import LoadedModel, load_model, warm_up
from inference.models.spec import InputSpec, ModelSpec
from inference.runtime.cpu import usable_cores
from inference.runtime.memory import return_large_blocks

_SECONDS = 3.0
_LIMITS = ImageLimits(50_000_000)


def measure(folder: Path, image: Path) -> dict[str, Any]:
    """Measure images per second, and p50 and p99 of a call in ms, by batch size; the same with LiteRT; and the prediction.

    If the image is a file to be decoded, in addition the figures of decoding it and predicting it with LiteRT.
    """
    spec, lite_spec, data = model_of(folder), model_of(folder, litert=True), image.read_bytes()
    header = _header(spec.input, data)
    array = np.zeros(spec.input.shape, spec.input.numpy_dtype)
    decode_into(array, data, header, spec.input, _LIMITS)
    lite = load_model(lite_spec)
    figures = _run(load_model(spec), spec, array) | {LITERT: _run(lite, lite_spec, array)}
    if header.format is not ImageFormat.RAW:
        figures[DECODING] = _run_decoding(lite, spec.input, data, header)
    return figures


def _run(model: LoadedModel, spec: ModelSpec, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    warm_up(model, spec, BATCH_SIZES)
    figures: dict[str, Any] = {"prediction": model.predict(array[None])[0].tolist()}
    for size in BATCH_SIZES:
        batch = np.repeat(array[None], size, axis=0)
        figures[str(size)] = _measure(partial(model.predict, batch), size)
    return figures


def _run_decoding(model: LoadedModel, spec: InputSpec, data: bytes, header: ImageHeader) -> dict[str, float]:
    """Decode a batch on all cores, then predict it on all cores, again and again: neither ever waits for the other's core."""
    batch = np.zeros((BATCH_SIZES[-1], *spec.shape), spec.numpy_dtype)
    with ThreadPoolExecutor(usable_cores()) as pool:

        def run() -> None:
            for _ in pool.map(lambda slot: decode_into(slot, data, header, spec, _LIMITS), batch):
                pass
            model.predict(batch)

        run()
        return _measure(run, len(batch))


def _measure(run: Callable[[], object], size: int) -> dict[str, float]:
    """Call `run` for some seconds; returns images per second, and p50 and p99 of a call in ms.

    Args:
        size: images in a call.
    """
    times = []
    end = time.perf_counter() + _SECONDS
    while (began := time.perf_counter()) < end:
        run()
        times.append(time.perf_counter() - began)
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"images_per_s": size * len(times) / sum(times), "p50_ms": float(p50), "p99_ms": float(p99)}


def _header(spec: InputSpec, data: bytes) -> ImageHeader:
    is_raw = len(data) == spec.bytes_per_image
    shape, dtype = (list(spec.shape), spec.dtype) if is_raw else (None, None)
    return inspect(data, shape=shape, dtype=dtype, content_type=None, spec=spec, limits=_LIMITS)


if __name__ == "__main__":
    return_large_blocks(from_bytes=8 * 2**20, kept_bytes=32 * 2**20)  # as the worker does: decoding a photo takes a quarter less
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
