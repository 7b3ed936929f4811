"""The Open Inference Protocol's descriptions, health and model repository."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_rig import services_of
from command_workers import NEW, Workers, ready
from flask import Flask
from flask.testing import FlaskClient
from v2_rig import assert_error

from api.components import components_of
from inference import __version__
from inference.domain import ModelRef
from inference.models.registry import reference

Announce = Callable[[], None]
LOAD = "/v2/repository/models/digits/load"


def test_server(client: FlaskClient) -> None:
    extensions = ["binary_tensor_data", "classification", "model_repository", "schedule_policy"]
    assert client.get("/v2").json == {"name": "image-inference", "version": __version__, "extensions": extensions}


def test_live(client: FlaskClient) -> None:
    assert client.get("/v2/health/live").json == {"live": True}


def test_ready(client: FlaskClient, app: Flask, announce: Announce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.readiness._MAX_AGE_S", 0.0)
    response = client.get("/v2/health/ready")
    assert (response.status_code, response.json) == (503, {"ready": False})
    announce()
    response = client.get("/v2/health/ready")
    assert (response.status_code, response.json) == (200, {"ready": True})
    components_of(app).stopping.set()
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == 200


def test_model(client: FlaskClient) -> None:
    expected = {
        "name": "digits",
        "versions": ["1"],
        "platform": "",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8, 1]}],
        "outputs": [
            {"name": "prediction", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert client.get("/v2/models/digits").json == expected
    assert client.get("/v2/models/digits/versions/1").json == expected


@pytest.mark.parametrize("path", ["/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"])
def test_model_ready(client: FlaskClient, announce: Announce, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json) == (503, {"name": "digits", "ready": False})
    announce()
    response = client.get(path)
    assert (response.status_code, response.json) == (200, {"name": "digits", "ready": True})


@pytest.mark.parametrize("path", ["", "/ready", "/versions/1", "/versions/1/ready"])
def test_unknown_models_and_versions(client: FlaskClient, path: str) -> None:
    assert_error(client.get(f"/v2/models/cats{path}"), 404, "cats")
    if "versions" in path:
        assert_error(client.get(f"/v2/models/digits{path}".replace("/1", "/2")), 404, "digits has no version '2'; expected: 1")


READY = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
UNAVAILABLE = {"name": "digits", "version": "1", "state": "UNAVAILABLE", "reason": "no worker has it loaded"}


class TestIndex:
    def test_all(self, client: FlaskClient, announce: Announce) -> None:
        assert client.post("/v2/repository/index").json == [UNAVAILABLE]
        assert client.post("/v2/repository/index", json={"ready": False}).json == [UNAVAILABLE]
        announce()
        assert client.post("/v2/repository/index", json={}).json == [READY]

    def test_ready(self, client: FlaskClient, announce: Announce) -> None:
        assert client.post("/v2/repository/index", json={"ready": True}).json == []
        announce()
        assert client.post("/v2/repository/index", json={"ready": True}).json == [READY]

    @pytest.mark.parametrize(("body", "text"), [("[]", "is []"), ('{"ready": 1}', "ready: Input"), ("{", "is not JSON")])
    def test_refused(self, client: FlaskClient, body: str, text: str) -> None:
        assert_error(client.post("/v2/repository/index", data=body), 400, text)


@pytest.mark.usefixtures("no_other_process")
class TestLoad:
    def served(self, app: Flask) -> ModelRef:
        services = services_of(app)
        services.runtime_config.refresh()
        snapshot = services.runtime_config.now()
        return snapshot.reference(snapshot.model("digits"))

    def test_what_is_loaded_already(self, client: FlaskClient, workers: Workers) -> None:
        workers.add("one", ready)
        assert client.post(LOAD).json == {"name": "digits", "load": True}
        assert workers.seen == []

    def test_new_files_and_back(self, client: FlaskClient, app: Flask, workers: Workers) -> None:
        workers.add("one", ready)
        response = client.post(LOAD, json={"parameters": {"weights_url": "digits/2.keras"}})
        assert response.json == {"name": "digits", "load": True}
        assert workers.seen[-1].files is not None
        assert self.served(app) == NEW

        def configured(worker: str) -> Any:
            report = ready(worker)
            return type(report)(worker, reference(services_of(app).models.get("digits")))

        workers.answers["one"] = configured
        assert client.post(LOAD, json={}).status_code == 200
        assert workers.seen[-1].files is None
        assert not workers.seen[-1].serve
        assert self.served(app).version == "1"

    def test_no_worker(self, client: FlaskClient) -> None:
        response = client.post(LOAD)
        assert_error(response, 503, "no worker has digits loaded")
        assert response.headers["Retry-After"] == "5"

    @pytest.mark.parametrize(
        ("parameters", "text"),
        [
            ({"config": "{}"}, "parameters.config: Extra inputs are not permitted"),
            ({"file:1/model.onnx": "AA"}, "parameters.file:1/model.onnx"),
            ({"architecture_url": "a.json"}, "without weights_url"),
        ],
    )
    def test_refused(self, client: FlaskClient, parameters: dict[str, Any], text: str) -> None:
        assert_error(client.post(LOAD, json={"parameters": parameters}), 400, text)

    def test_unknown(self, client: FlaskClient) -> None:
        assert_error(client.post("/v2/repository/models/cats/load"), 404, "cats")


def test_a_model_cannot_be_unloaded(client: FlaskClient) -> None:
    body = {"parameters": {"unload_dependents": False}}
    assert_error(client.post("/v2/repository/models/digits/unload", json=body), 400, "digits cannot be unloaded")
    assert_error(client.post("/v2/repository/models/cats/unload"), 404, "cats")
