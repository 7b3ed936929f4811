"""Descriptions of the server and of models, as the protocol has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.v2.datatypes import BYTES, datatype_of
from api.v2.outputs import LABEL, PREDICTION, output_names
from api.v2.tensors import IMAGE
from inference import __version__
from inference.domain import ModelRef
from inference.models.spec import ModelSpec, RawArrays
from inference.rollout.worker_registry import WorkerInfo

_EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "schedule_policy")


def server_metadata() -> dict[str, Any]:
    """Describe the server."""
    return {"name": "image-inference", "version": __version__, "extensions": _EXTENSIONS}


def model_metadata(spec: ModelSpec, model: ModelRef, workers: Sequence[WorkerInfo]) -> dict[str, Any]:
    """Describe a model.

    Args:
        model: its version that is served.
    """
    runtimes = (loaded.runtime for worker in workers for loaded in worker.models if loaded.name == spec.name)
    return {
        "name": spec.name,
        "versions": [model.version],
        "platform": next(filter(None, runtimes), ""),
        "inputs": [_input(spec)],
        "outputs": [_output(name, spec) for name in output_names(spec)],
    }


def is_loaded(name: str, workers: Sequence[WorkerInfo]) -> bool:
    """Whether a worker has the model loaded."""
    return any(loaded.name == name for worker in workers for loaded in worker.models)


def _input(spec: ModelSpec) -> dict[str, Any]:
    """Describe the input as arrays; a model that takes pixels resizes them itself."""
    image = spec.image_input
    if image.raw is RawArrays.PIXELS:
        return {"name": IMAGE, "datatype": "UINT8", "shape": [-1, -1, -1, image.shape[-1]]}
    return {"name": IMAGE, "datatype": datatype_of(image.numpy_dtype), "shape": [-1, *image.array_shape]}


def _output(name: str, spec: ModelSpec) -> dict[str, Any]:
    if name == LABEL:
        return {"name": LABEL, "datatype": BYTES, "shape": [-1]}
    return {"name": PREDICTION, "datatype": "FP32", "shape": [-1, len(spec.labels) or -1]}
