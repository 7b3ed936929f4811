"""Commands during an outage of the task store: the answer has the committed state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_rig import assert_problem, services_of
from command_workers import Workers, ready
from flask import Flask
from support.redis_server import RedisServer, own_redis_server
from werkzeug.test import TestResponse

from inference.errors import ServiceUnavailable

pytestmark = pytest.mark.usefixtures("no_other_process")

CONTROLLER = "/inference_service_controller"


@pytest.fixture(
    params=[
        ("commit", {"command": "load_new_weights", "local_file": "True", "weights_url": "/m.keras", "model": "digits"}, {}),
        ("serve", {"command": "load_new_model", "model_id": "digits"}, {"served_model": "digits"}),
        ("set_ensemble", {"command": "change_ensemble_mode", "ensemble_mode": "True"}, {"ensemble_mode": True}),
    ],
    ids=lambda param: param[0],
)
def change(request: pytest.FixtureRequest) -> Any:
    """The method of the store that makes the change, the command, and what differs afterwards."""
    return request.param


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_redis_server() as server:
        yield server


@pytest.fixture
def app(make_app: Any, repository: Path, server: RedisServer) -> Flask:
    folder = repository / "models" / "digits"
    other = yaml.safe_load((folder / "model.yaml").read_text()) | {"name": "other"}
    other |= {name: str(folder / other[name]) for name in ("file", "labels_file")}
    app: Flask = make_app(broker={"url": server.url}, models=(folder, other), default_model="other", ensemble=False)
    return app


def check(app: Flask, response: TestResponse, differs: dict[str, Any]) -> None:
    sinks = ["kafka"] if "ensemble_mode" in differs else ["mongodb"]
    expected = {"served_model": "other", "ensemble_mode": False, "sinks": sinks} | differs
    assert response.status_code == 200, response.data
    assert response.json is not None
    answer = response.json["response"]
    assert {name: answer[name] for name in expected} == expected
    state = services_of(app).desired.read()
    assert (state.served, state.ensemble) == (differs.get("served_model"), differs.get("ensemble_mode"))
    assert ("digits" in state.models) == ("model" in answer)


def test_the_answer_to_the_change_is_lost(
    app: Flask, workers: Workers, monkeypatch: pytest.MonkeyPatch, change: tuple[str, dict[str, str], dict[str, Any]]
) -> None:
    method, fields, differs = change
    make = getattr(services_of(app).desired, method)
    made: list[Any] = []

    def make_and_lose_the_answer(*arguments: Any) -> Any:
        made.append(make(*arguments))
        if len(made) == 1:
            raise ServiceUnavailable("the answer is lost")
        return made[-1]

    monkeypatch.setattr(services_of(app).desired, method, make_and_lose_the_answer)
    workers.add("w", ready)
    check(app, app.test_client().post(CONTROLLER, data=fields), differs)
    assert len(made) == 2


def test_the_server_stops_after_the_change(
    app: Flask,
    server: RedisServer,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, dict[str, str], dict[str, Any]],
) -> None:
    method, fields, differs = change
    make = getattr(services_of(app).desired, method)

    def make_and_stop_the_server(*arguments: Any) -> Any:
        made = make(*arguments)
        workers.stop()
        server.stop()
        return made

    monkeypatch.setattr("api.commands._SWITCH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(services_of(app).desired, method, make_and_stop_the_server)
    workers.add("w", ready)
    response = app.test_client().post(CONTROLLER, data=fields)
    server.start()
    check(app, response, differs)


def test_a_change_that_the_server_refuses_is_not_repeated(app: Flask, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ServiceUnavailable("the task store refuses")
    refusal.is_refusal = True
    refused: list[str] = []

    def refuse(model: str) -> None:
        refused.append(model)
        raise refusal

    monkeypatch.setattr(services_of(app).desired, "serve", refuse)
    workers.add("w", ready)
    answer = app.test_client().post(CONTROLLER, data={"command": "load_new_model", "model_id": "digits"})
    assert_problem(answer, 503, "service_unavailable")
    assert refused == ["digits"]
