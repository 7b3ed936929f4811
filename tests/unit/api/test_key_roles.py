"""Roles that the operations need: every operation with every role, over HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from api_rig import MakeApp, assert_problem
from flask import Flask
from flask.testing import FlaskClient
from key_rig import Keys, bearer, write_keys
from support.contract import document
from werkzeug.test import TestResponse

from api.openapi.operation import Operation
from api.openapi.operations import OPERATIONS
from api.security.keys import needed_roles
from inference.access import Role
from inference.errors import Forbidden

#: Operations by the roles with which they may be called. A new operation is added here, too.
ROLES: dict[str, set[str]] = {
    "none": {
        "index",
        "live",
        "ready",
        "v2_live",
        "v2_ready",
        "get_openapi",
        "show_docs",
        "get_docs_file",
        "redirect_to_console",
        "show_console",
        "show_console_page",
        "show_console_subject",
        "get_console_file",
        "put_upload",  # its URL has a signature
    },
    "any": {
        "describe",
        "describe_at_old_path",
        "get_key",
        "list_models",
        "get_model",
        "v2_get_server",
        "v2_get_model",
        "v2_get_model_of_version",
        "v2_model_ready",
        "v2_model_ready_of_version",
        "v2_index",
        "get_batch",
        "list_tasks",
        "get_task",
        "get_image",
        "get_erasure",
        "stream_task",
        "stream_batch",
        "stream_tasks",
    },
    "read": {"get_metrics", "get_status"},
    "predict": {
        "predict",
        "predict_at_old_path",
        "predict_batch",
        "create_upload",
        "cancel_batch",
        "cancel_task",
        "erase_tasks",
        "replay_task",
        "v2_infer",
        "v2_infer_of_version",
    },
    "admin": {"run_command", "list_dead_letters", "replay_dead_letter", "discard_dead_letter", "v2_load", "v2_unload"},
}
ALLOWED = {
    "any": {Role.PREDICT, Role.READ, Role.ADMIN},
    "read": {Role.READ, Role.ADMIN},
    "predict": {Role.PREDICT, Role.ADMIN},
    "admin": {Role.ADMIN},
}
#: Values of the parameters in paths.
VALUES = {
    "task_id": "0123456789abcdef0123456789abcdef",
    "batch_id": "0123456789abcdef0123456789abcdef",
    "erasure_id": "0123456789abcdef0123456789abcdef",
    "upload_id": "nothing",
    "name": "digits",
    "version": "1",
    "page": "tasks",
    "subject": "nothing",
    "digest": "0123456789abcdef",
}
KEYED = [operation for operation in OPERATIONS if operation.operation_id not in ROLES["none"]]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return write_keys(tmp_path)


@pytest.fixture
def app(make_app: MakeApp, keys: Keys) -> Flask:
    return make_app(security={"keys_file": keys.file})


def call(client: FlaskClient, operation: Operation, headers: dict[str, str] | None = None) -> TestResponse:
    path = operation.path.format_map(VALUES)
    with client.open(path, method=operation.method.upper(), headers=headers) as response:  # a stream has no end
        return response


def test_every_operation_has_one_role() -> None:
    names = [name for names in ROLES.values() for name in names]
    assert sorted(names) == sorted(operation.operation_id for operation in OPERATIONS)
    assert {role: {found.operation_id for found in OPERATIONS if found.role == role} for role in ROLES} == ROLES


def test_every_route_has_a_role(app: Flask) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS"}
    }
    assert needed_roles(open_metrics=False).keys() == routes


def test_without_a_key_each_operation_that_needs_one_is_401(app: Flask) -> None:
    client = app.test_client()
    for operation in OPERATIONS:
        response = call(client, operation)
        if operation.operation_id in ROLES["none"]:
            assert response.status_code not in {401, 403}, operation.operation_id
        else:
            assert response.status_code == 401, operation.operation_id
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="inference"'
            assert set(response.json) == {"error"} if operation.is_v2 else response.json["code"] == "unauthenticated"


@pytest.mark.parametrize("role", Role)
def test_each_role_may_call_its_operations_alone(app: Flask, keys: Keys, role: Role) -> None:
    client = app.test_client()
    refused = set()
    for operation in KEYED:
        response = call(client, operation, bearer(keys.of(role)))
        assert response.status_code != 401, operation.operation_id
        if response.status_code == 403:
            refused.add(operation.operation_id)
            needed = " or ".join(sorted(ALLOWED[operation.role], reverse=True))
            text = response.json["error"] if operation.is_v2 else response.json["detail"]
            assert f"needs a key with the role {needed}; this key has the role {role}" in text
    assert refused == {name for needed, roles in ALLOWED.items() if role not in roles for name in ROLES[needed]}


def test_a_route_without_an_operation_needs_the_role_admin(make_app: MakeApp, keys: Keys) -> None:
    app = make_app(security={"keys_file": keys.file})
    app.add_url_rule("/forgotten", view_func=lambda: "served")
    client = app.test_client()
    assert_problem(client.get("/forgotten", headers=bearer(keys.predict)), 403, "forbidden")
    assert client.get("/forgotten", headers=bearer(keys.admin)).data == b"served"


def test_open_metrics(make_app: MakeApp, keys: Keys) -> None:
    client = make_app(security={"keys_file": keys.file, "open_metrics": True}).test_client()
    for operation in OPERATIONS:
        if operation.role == "read":
            assert call(client, operation).status_code == 200, operation.operation_id


class TestDescription:
    def test_each_operation_says_what_it_needs(self) -> None:
        for operation in OPERATIONS:
            described = document()["paths"][operation.path][operation.method]
            roles = [] if operation.role == "any" else [operation.role]
            wanted = [] if operation.role == "none" else [{"bearer": roles}, {"api_key": roles}]
            assert described["security"] == wanted
            statuses = described["responses"].keys() & {"401", "403"}
            writing = operation.method != "get"
            assert ("401" in statuses) == (operation.role != "none")
            names_an_owner = Forbidden in operation.own_problems
            assert ("403" in statuses) == (writing or names_an_owner or operation.role not in {"none", "any"})

    def test_schemes(self, app: Flask) -> None:
        served = orjson.loads(app.test_client().get("/openapi.json").data)
        schemes = served["components"]["securitySchemes"]
        assert schemes["bearer"]["scheme"] == "bearer"
        assert (schemes["api_key"]["in"], schemes["api_key"]["name"]) == ("header", "X-API-Key")
