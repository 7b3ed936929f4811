"""The description of the API: it has every route, every problem and every option, and its examples are accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from api_rig import MakeApp, assert_problem, form, picture, post, services_of
from command_workers import Workers, ready
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
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations()} == routes


def test_the_overview_names_every_path(client: FlaskClient) -> None:
    named = {name for text in client.get("/").json["paths"] for name in re.findall(r"/[^ ?,]*", text)}
    left_out = re.compile(r"/(v2/.*|ui.*|docs/.*|uploads/.*|inference_service)?")
    assert {path for _, path, _ in operations() if not left_out.fullmatch(path)} <= named


def test_every_problem_is_of_an_operation() -> None:
    described = {code for codes in find(document()["components"]["responses"], "enum") for code in codes}
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
        if method == "POST" and path in {"/inference", "/inference_service", "/inference/batch"}:
            assert query_names(operation) == options, path


def test_every_field_of_a_command_is_described() -> None:
    described: dict[str, set[str]] = {}
    for name in ("ChangeEnsembleMode", "LoadNewModel", "LoadNewWeights"):
        properties = SCHEMAS[name]["properties"]
        names = properties["command"].get("enum", [properties["command"].get("const")])
        described |= {command: set(properties) for command in names}
    assert described == COMMAND_FIELDS
    for name in ("CommandForm", "CommandQuery"):
        assert SCHEMAS[name]["properties"].keys() == set().union(*COMMAND_FIELDS.values())


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


BODIES = [
    pytest.param(path, example["value"], id=f"{path} {name}")
    for _, path, operation in operations()
    if "requestBody" in operation
    for name, example in operation["requestBody"]["content"].get("application/json", {"examples": {}})["examples"].items()
]
#: Values in the paths of those operations.
IN_PATHS = {"name": "digits", "version": "1"}


class TestExamples:
    """Each example of a request is accepted as it is."""

    @pytest.fixture
    def app(self, make_app: MakeApp) -> Flask:
        return make_app(ensemble=False)

    @pytest.mark.usefixtures("no_other_process", "worker")
    @pytest.mark.parametrize(("path", "body"), BODIES)
    def test_bodies(self, app: Flask, client: FlaskClient, workers: Workers, path: str, body: dict[str, Any]) -> None:
        workers.add("one", ready)
        services_of(app).objects.put("photos/17.jpg", picture("JPEG"))
        response = client.post(path.format_map(IN_PATHS), json=body)
        assert response.status_code == 200, response.data
        if path == "/inference/batch":
            assert response.json["counts"]["succeeded"] == len(body["items"])

    def test_there_are_some_of_each_kind(self) -> None:
        commands = {parameters.values[1].get("command") for parameters in BODIES}
        assert commands == COMMAND_FIELDS.keys() - {"modify_weights"} | {None}

    @pytest.mark.usefixtures("worker")
    def test_metadata(self, client: FlaskClient) -> None:
        (metadata,) = SCHEMAS["Metadata"]["examples"]
        response = post(client, form(picture("PNG"), metadata=metadata))
        assert (response.status_code, response.json["request_id"]) == (200, metadata["request_id"])

    def test_query_parameters(self, client: FlaskClient) -> None:
        examples = {
            (path, parameter["name"]): example
            for method, path, operation in operations()
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
            for example in parameter["schema"].get("examples", ())
        }
        assert examples
        for (path, name), example in examples.items():
            with client.get(path, query_string={name: example}) as response:  # /events has no end
                assert response.status_code == 200


class TestComparison:
    """The comparison of the other tests' answers finds an answer that does not fit."""

    def check(self, status: int = 200, kind: str = "application/json", query: str = "", **members: Any) -> None:
        body = orjson.dumps({"status": "live"} | members)
        check_answer("GET", f"/health/live{query}", status, {"Content-Type": kind}, body)

    def test_accepts_a_described_answer(self) -> None:
        self.check()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"status": 201}, "does not have"),
            ({"kind": "text/plain"}, "the document has application/json"),
            ({"more": 1}, "'more' was unexpected"),
            ({"query": "?verbose=1"}, "a query with {'verbose'}"),
        ],
    )
    def test_refuses_another(self, options: dict[str, Any], reason: str) -> None:
        with pytest.raises(AssertionError, match=reason):
            self.check(**options)

    def test_refuses_an_unknown_code(self) -> None:
        problem = {"type": "t", "title": "t", "status": 400, "detail": "d", "code": "nothing"}
        with pytest.raises(AssertionError, match="nothing"):
            check_answer("GET", "/nothing", 400, {"Content-Type": "application/problem+json"}, orjson.dumps(problem))


class TestOff:
    def test_neither_is_served(self, make_app: MakeApp) -> None:
        client = make_app(api={"docs": False}).test_client()
        assert [client.get(path).status_code for path in ("/openapi.json", "/docs", "/docs/page.js")] == [404, 404, 404]
        assert not any("docs" in path for path in client.get("/").json["paths"])


class TestPage:
    def test_files(self, client: FlaskClient) -> None:
        contents = {
            "page.js": b"validatorUrl: null",
            "swagger-ui.css": b".swagger-ui",
            "swagger-ui-bundle.js": b"SwaggerUIBundle",
        }
        for name, content in contents.items():
            response = client.get(f"/docs/{name}")
            assert content in response.data
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; base-uri")

    @pytest.mark.parametrize("name", ["nothing", "..%2f..%2fplugins.py", "swagger-ui.css/", "PAGE.js"])
    def test_there_are_no_other_files(self, client: FlaskClient, name: str) -> None:
        assert_problem(client.get(f"/docs/{name}"), 404, "not_found")

    def test_the_page_has_one_policy_of_its_own(self, client: FlaskClient) -> None:
        (policy,) = client.get("/docs").headers.getlist("Content-Security-Policy")
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
