"""The description of the API: it has every route, every problem and every option, and its examples are accepted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from api_rig import post_async, raw_image
from command_workers import Workers
from flask import Flask
from flask.testing import FlaskClient
from support.contract import check_answer, document, operations, query_names, resolved

from api.forms.known_fields import COMMAND_FIELDS, PREDICT_FIELDS
from inference.errors import ERRORS_BY_CODE, ConfigurationError, MethodNotAllowed, NotFound

SCHEMAS = document()["components"]["schemas"]


def find(value: Any, name: str) -> Iterator[Any]:
    """Every member `name`, at any depth."""
    if isinstance(value, dict):
        yield from (value[key] for key in value if key == name)
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from find(inner, name)


def test_every_route_has_an_operation_and_the_reverse(app: Flask) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations()} == routes


def test_every_problem_is_of_an_operation() -> None:
    described = set(find(document()["components"]["responses"], "enum").__next__.__self__ and [])
    for codes in find(document()["components"]["responses"], "enum"):
        described |= set(codes)
    kinds = set(ERRORS_BY_CODE.values()) - {ConfigurationError, MethodNotAllowed}
    assert described == {kind.code for kind in kinds}
    assert set(SCHEMAS["Problem"]["properties"]["code"]["enum"]) == described | {MethodNotAllowed.code}
    assert NotFound.code in described


def test_problems_have_the_status_of_their_code() -> None:
    for _, path, operation in operations():
        for status, reference in operation["responses"].items():
            for codes in find(resolved(reference).get("content", {}), "enum"):
                assert {ERRORS_BY_CODE[code].status for code in codes} == {int(status)}, (path, status)


def test_every_option_is_described() -> None:
    options = PREDICT_FIELDS
    assert SCHEMAS["PredictForm"]["properties"].keys() == options | {"image"}
    assert SCHEMAS["BatchForm"]["properties"].keys() == options | {"image"}
    assert SCHEMAS["Metadata"]["properties"].keys() == options - {"metadata", "command"}
    for method, path, operation in operations():
        if (method, path.partition("_service")[0]) in {("POST", "/inference"), ("POST", "/inference/batch")}:
            assert query_names(operation) >= options or path.endswith("controller"), path


def test_every_field_of_a_command_is_described() -> None:
    by_command = {
        name: set(schema["properties"])
        for schema in SCHEMAS.values()
        for name in [
            *schema.get("properties", {}).get("command", {}).get("enum", []),
            schema.get("properties", {}).get("command", {}).get("const"),
        ]
        if "ensemble_mode" not in schema["properties"] or name == "change_ensemble_mode"
    }
    for name, fields in COMMAND_FIELDS.items():
        assert by_command[name] == fields, name


def test_every_reference_leads_somewhere() -> None:
    references = set(find(document(), "$ref"))
    assert len(references) > 50
    for reference in references:
        resolved({"$ref": reference})
    used = {reference.rpartition("/")[2] for reference in references if "/schemas/" in reference}
    assert used == SCHEMAS.keys()


def test_every_link_leads_to_an_operation() -> None:
    ids = {operation["operationId"] for _, _, operation in operations()}
    assert len(ids) == len(operations())
    assert set(find(document()["components"]["links"], "operationId")) <= ids


def test_the_committed_document_is_that_of_the_code(repository: Path) -> None:
    committed = json.loads((repository / "docs/openapi.json").read_text(encoding="utf-8"))
    assert committed == document(), "the contract has changed: look at the change, and write it with `make openapi`"
