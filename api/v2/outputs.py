"""Output tensors: the vector of each image, its most likely classes, or its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.v2.datatypes import BYTES
from api.v2.protocol import OutputParameters, RequestedOutput
from inference.domain import PredictionResult
from inference.errors import InvalidRequest, ServiceUnavailable, shown
from inference.models.spec import ModelSpec

#: Output with the model's vector, and output with the label of its highest value, which a model with labels has.
PREDICTION, LABEL = "prediction", "label"


@dataclass(frozen=True)
class Output:
    """Output that an answer has."""

    name: str
    is_binary: bool
    #: number of classes in place of the vector; 0: the vector
    classes: int = 0


def output_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of a model's outputs."""
    return (PREDICTION, LABEL) if spec.labels else (PREDICTION,)


def read_outputs(requested: Sequence[RequestedOutput] | None, spec: ModelSpec, *, is_binary: bool) -> tuple[Output, ...]:
    """Read the requested outputs; without a request these are all of the model.

    Args:
        is_binary: whether outputs that do not say so are binary.

    Raises:
        InvalidRequest: the model does not have such an output, or an output twice.
    """
    names = output_names(spec)
    if not requested:
        return tuple(Output(name, is_binary) for name in names)
    for output in requested:
        if output.name not in names:
            raise InvalidRequest(f"{spec.name} has no output {shown(output.name)}", expected=" or ".join(names))
    if len({output.name for output in requested}) < len(requested):
        raise InvalidRequest(f"the output {requested[0].name} is requested twice", expected="each output once")
    return tuple(_read_output(output, is_binary) for output in requested)


def _read_output(requested: RequestedOutput, is_binary: bool) -> Output:
    parameters = requested.parameters or OutputParameters()
    if parameters.shared_memory_region is not None:
        raise InvalidRequest("there is no shared memory here", expected="binary_data")
    classes = parameters.classification or 0
    if classes and requested.name != PREDICTION:
        raise InvalidRequest(f"{requested.name} has no classification", expected=f"classification of {PREDICTION}")
    return Output(requested.name, is_binary if parameters.binary_data is None else parameters.binary_data, classes)


def write_outputs(
    outputs: Sequence[Output], results: Sequence[PredictionResult], labels: Sequence[str]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the tensors as the JSON object has them, and the binary data that follows it.

    Args:
        results: of each image.
        labels: of the model, in class order.

    Raises:
        ServiceUnavailable: the model was replaced meanwhile, by one with another number of classes.
    """
    if len({result.prediction.shape for result in results}) > 1:
        raise ServiceUnavailable("the model was replaced during the request", retry_after_s=1)
    vectors = np.stack([result.prediction for result in results])
    tensors, binary = [], []
    for output in outputs:
        tensor, data = _tensor(output, results, vectors, labels)
        tensors.append(tensor)
        if data is not None:
            tensor["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
    return tensors, binary


def _tensor(
    output: Output, results: Sequence[PredictionResult], vectors: NDArray[np.float32], labels: Sequence[str]
) -> tuple[dict[str, Any], bytes | None]:
    """Return a tensor, and its data if that is binary."""
    if output.name == PREDICTION and not output.classes:
        tensor: dict[str, Any] = {"name": output.name, "datatype": "FP32", "shape": vectors.shape}
        if output.is_binary:
            return tensor, vectors.astype("<f4", copy=False).tobytes()
        return tensor | {"data": vectors.ravel()}, None
    if output.name == LABEL:
        texts, shape = [result.label or "" for result in results], [len(results)]
    else:
        count = min(output.classes, vectors.shape[1])
        texts = [text for vector in vectors for text in _classification(vector, count, labels)]
        shape = [len(results), count]
    tensor = {"name": output.name, "datatype": BYTES, "shape": shape}
    return (tensor, _binary_texts(texts)) if output.is_binary else (tensor | {"data": texts}, None)


def _classification(vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> list[str]:
    """Write the highest values as VALUE:INDEX:LABEL, the highest first, with six decimals as Triton."""
    best = np.argsort(-vector, kind="stable")[:count].tolist()
    return [f"{vector[index]:f}:{index}" + (f":{labels[index]}" if index < len(labels) else "") for index in best]


def _binary_texts(texts: Sequence[str]) -> bytes:
    """Write elements of BYTES, each with its length before it."""
    elements = [text.encode() for text in texts]
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))
