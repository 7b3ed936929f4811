"""Hooks of schemathesis: real images among the random ones, and the answers that count as errors of the server."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 30, 200)).save(file, kind)
    return file.getvalue()


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((8, 8, 1), 7, np.float32))
    return file.getvalue()


_IMAGES = st.sampled_from([_picture("PNG"), _picture("JPEG"), _picture("WEBP"), _array()])

#: Options of images with names or formats of their own.
_NAMES = {"model", "sinks", "shape", "dtype", "metadata", "webhook"}

#: Names in paths of the Open Inference Protocol.
_SERVED = {"name": "digits", "version": "1"}

schemathesis.openapi.format("binary", _IMAGES | st.binary(max_size=100))


@schemathesis.check
def no_error_of_the_server(ctx: Any, response: Any, case: Any) -> None:
    """Every 5xx is of the request: its deadline is too short, or its command names files of a store that is not there."""
    if response.status_code < 500:
        return
    problem = response.json()
    if "error" in problem:  # of the Open Inference Protocol
        assert response.status_code == 504 or "the object store does not answer" in problem["error"], problem
        return
    is_late = problem["code"] in {"deadline_exceeded", "wait_timeout"}
    has_no_store = problem["code"] == "service_unavailable" and "the object store does not answer" in problem["detail"]
    assert is_late or has_no_store, problem


def _without_names(fields: Any) -> st.SearchStrategy[Any]:
    """The fields, or in most cases those without names of models and sinks: random ones are refused, and so no task is made."""
    if not isinstance(fields, dict) or not fields.keys() & _NAMES:
        return st.just(fields)
    few = {name: value for name, value in fields.items() if name not in _NAMES}
    return st.sampled_from([few, few, few, fields])


@schemathesis.hook
def flatmap_body(ctx: Any, body: Any) -> st.SearchStrategy[Any]:
    return _without_names(body)


@schemathesis.hook
def flatmap_query(ctx: Any, query: Any) -> st.SearchStrategy[Any]:
    return _without_names(query)


@schemathesis.hook
def flatmap_path_parameters(ctx: Any, path_parameters: Any) -> st.SearchStrategy[Any]:
    """Use the names of the served model in most paths of the Open Inference Protocol."""
    if not isinstance(path_parameters, dict) or not ctx.operation.path.startswith("/v2/"):
        return st.just(path_parameters)
    known = path_parameters | {name: value for name, value in _SERVED.items() if name in path_parameters}
    return st.sampled_from([known, known, known, path_parameters])
