"""Requests of the Open Inference Protocol, as its clients write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.test import TestResponse

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/digits/infer"


def arrays(*numbers: float) -> NDArray[np.float32]:
    """A batch with an image of each number."""
    return np.stack([np.full((8, 8, 1), number, np.float32) for number in numbers])


def tensor(data: Any, datatype: str = "FP32", shape: Sequence[int] | None = None, **parameters: Any) -> dict[str, Any]:
    """An input with its data in JSON; without data, if that is None."""
    found: dict[str, Any] = {"name": "image", "datatype": datatype, "shape": list(np.shape(data) if shape is None else shape)}
    if data is not None:
        found["data"] = data.tolist() if isinstance(data, np.ndarray) else data
    return found | ({"parameters": parameters} if parameters else {})


def request_of(image: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"inputs": [image], **members}


def elements(*contents: bytes) -> bytes:
    """Binary data of BYTES."""
    return b"".join(len(content).to_bytes(4, "little") + content for content in contents)


def binary_body(document: dict[str, Any], data: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose input has `data`."""
    head = orjson.dumps(document)
    return head + data, {HEADER: str(len(head))}


def binary_request(data: bytes, datatype: str, shape: Sequence[int], **members: Any) -> tuple[bytes, dict[str, str]]:
    image = tensor(None, datatype, shape, binary_data_size=len(data))
    return binary_body(request_of(image, **members), data)


def infer(client: FlaskClient, document: dict[str, Any] | bytes, path: str = INFER, **headers: str) -> TestResponse:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()  # also what orjson does not write
    return client.post(path, data=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def infer_binary(
    client: FlaskClient, data: bytes, datatype: str, shape: Sequence[int], headers: dict[str, str] | None = None, **members: Any
) -> TestResponse:
    body, length = binary_request(data, datatype, shape, **members)
    return client.post(INFER, data=body, headers=length | (headers or {}))


def outputs(response: TestResponse) -> dict[str, dict[str, Any]]:
    """Outputs of an answer by name; binary data is in `data` too."""
    assert response.status_code == 200, response.data
    length = int(response.headers.get(HEADER, len(response.data)))
    document, rest = orjson.loads(response.data[:length]), response.data[length:]
    for output in document["outputs"]:
        if "parameters" in output:
            size = output["parameters"]["binary_data_size"]
            output["data"], rest = rest[:size], rest[size:]
    assert rest == b""
    return {output["name"]: output for output in document["outputs"]}


def assert_error(response: TestResponse, status: int, text: str) -> str:
    """The answer is an error as the protocol has it; gives its text."""
    assert response.status_code == status, response.data
    assert response.content_type == "application/json"
    document = orjson.loads(response.data)
    assert document.keys() == {"error"}
    assert text in document["error"]
    return str(document["error"])
