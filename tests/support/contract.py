"""The contract of the API: whether an answer is one that the OpenAPI document of the code describes."""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from http import HTTPStatus
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl

import orjson
import requests
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from werkzeug.test import TestResponse

from api.openapi.document import openapi_document

PROBLEM = "application/problem+json"
#: Media types of answers that may have no end.
STREAMED = {"text/event-stream", "application/jsonl"}
#: gzip or zlib, for `zlib.decompress`.
_ANY_FORMAT = 47
#: Problems of requests that are of no operation.
_OF_NO_OPERATION = {"not_found", "method_not_allowed"}


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(openapi_document())
    return found


@cache
def _closed_components() -> dict[str, Any]:
    """Components that allow no member which is not described: here a new member of an answer is to be described."""
    components = copy.deepcopy(document()["components"])
    for schema in components["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return components


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    return [(method.upper(), path, found) for path, item in document()["paths"].items() for method, found in item.items()]


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    return [(method, re.compile(re.sub(r"{\w+}", "[^/]+", path)), found) for method, path, found in operations()]


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The operation that answers a request; None if there is none."""
    wanted = "GET" if method == "HEAD" else method
    return next((found for method, pattern, found in _patterns() if method == wanted and pattern.fullmatch(path)), None)


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """The schema or component that `value` refers to."""
    found: Any = value
    while "$ref" in found:
        reference = found["$ref"]
        found = document()
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    result: dict[str, Any] = found
    return result


@cache
def _validator(operation_id: str, status: int, media_type: str) -> Draft202012Validator:
    (operation,) = [found for _, _, found in operations() if found["operationId"] == operation_id]
    schema = resolved(operation["responses"][str(status)])["content"][media_type]["schema"]
    return Draft202012Validator({"allOf": [schema], "components": _closed_components()})


@cache
def _item_validator(path: str, media_type: str) -> Draft202012Validator:
    operation = operation_of("GET", path)
    assert operation is not None, path
    return Draft202012Validator(
        {
            "allOf": [operation["responses"]["200"]["content"][media_type]["x-item-schema"]],
            "components": _closed_components(),
        }
    )


def check_item(path: str, media_type: str, item: Any) -> None:
    """The item of a streamed answer to GET, a line or the data of an event, is one that the document describes."""
    errors = _errors(_item_validator(path, media_type), item)
    assert not errors, f"an item of {path} does not fit its schema: {errors}"


@cache
def _problem_validator() -> Draft202012Validator:
    return Draft202012Validator({"$ref": "#/components/schemas/Problem", "components": _closed_components()})


def check_problem(body: bytes) -> str:
    """The body is a problem as described; gives its code."""
    problem = orjson.loads(body)
    errors = _errors(_problem_validator(), problem)
    assert not errors, f"a problem is not as described: {errors}"
    return str(problem["code"])


def check_answer(method: str, url: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """The answer is one that the document describes for this request.

    Args:
        url: path and query.
    """
    path, _, query = url.partition("?")
    operation = operation_of(method, path)
    media_type = headers.get("Content-Type", "").partition(";")[0]
    code = check_problem(body) if media_type == PROBLEM and body else ""
    if operation is None or code in _OF_NO_OPERATION:
        return
    what = f"{method} {path} was answered with {status} {media_type}"
    assert str(status) in operation["responses"], f"{what}, which the document does not have"
    described = resolved(operation["responses"][str(status)])
    content = described.get("content", {"": {}})  # an answer without a body has none
    kinds = [kind for kind in content if fnmatch(media_type, kind)]
    assert kinds, f"{what}, and the document has {', '.join(content)}"
    undescribed = (headers.keys() & document()["components"]["headers"].keys()) - described["headers"].keys()
    assert not undescribed, f"{what} with the headers {undescribed}, which the document does not have"
    if status < HTTPStatus.BAD_REQUEST:
        names = {name for name, _ in parse_qsl(query)} - query_names(operation) - {"_"}
        assert not names, f"{what} to a query with {names}, which the document does not have"
    if body and kinds[0].endswith("json"):
        errors = _errors(_validator(operation["operationId"], status, kinds[0]), orjson.loads(body))
        assert not errors, f"{what}, which does not fit its schema: {errors}"


def query_names(operation: dict[str, Any]) -> set[str]:
    """Names of all query parameters of an operation."""
    names: set[str] = set()
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            is_object = parameter.get("explode", False)
            names |= resolved(parameter["schema"])["properties"].keys() if is_object else {parameter["name"]}
    return names


def _errors(validator: Draft202012Validator, document: Any) -> list[str]:
    errors = validator.iter_errors(document)
    return [f"{error.json_path}: {error.message[:200]} … {error.message[-100:]}" for error in map(_deepest, errors)]


def _deepest(error: ValidationError) -> ValidationError:
    """The most telling error below one of `anyOf`."""
    return best_match([error]) or error


@contextmanager
def checked_requests() -> Iterator[None]:
    """Compare every answer that `requests` gets from the API with the document."""
    send = requests.Session.send

    def checked(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(session, request, **options)
        if "X-Request-ID" in response.headers and not options.get("stream"):  # other servers do not have it
            method, headers = str(request.method), dict(response.headers)
            check_answer(method, request.path_url, response.status_code, headers, response.content)
        return response

    with patch.object(requests.Session, "send", checked):
        yield


class CheckedClient(FlaskClient):
    """Test client that compares every answer with the document."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        request = response.request
        url = f"{request.path}?{request.query_string.decode('utf-8', 'replace')}"
        body = b"" if response.mimetype in STREAMED else response.get_data()
        if body and "Content-Encoding" in response.headers:
            body = zlib.decompress(body, _ANY_FORMAT)
        check_answer(request.method, url, response.status_code, dict(response.headers), body)
        return response
