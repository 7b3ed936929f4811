"""GET /status, /models and /models/NAME."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from api_rig import assert_problem, post_async, services_of
from command_workers import NEW, Workers, ready
from flask import Flask
from flask.testing import FlaskClient
from support.real_servers import NOBODY

from inference.errors import InvalidModel
from inference.rollout.desired_state import LoadReport, NewFiles, Proposal
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.status.collect import status_of


class TestStatus:
    def test_is_what_the_command_prints(self, client: FlaskClient, app: Flask, announce: Callable[[], None]) -> None:
        announce()
        post_async(client)
        told = client.get("/status").json
        printed = orjson.loads(orjson.dumps(status_of(services_of(app))))
        for status in (told, printed):  # it is a little older
            assert status["models"][0]["queue"].pop("oldest_age_s") >= 0
        assert told == printed
        assert (told["models"][0]["queue"]["depth"], told["models"][0]["workers"]) == (1, 1)
        assert told["stores"] == {"task_store": "ok", "broker": "ok", "object_store": "ok"}

    def test_of_a_store_that_is_down_has_no_addresses(self, make_app: Any) -> None:
        response = make_app(broker={"url": f"redis://{NOBODY}/0"}).test_client().get("/status")
        assert response.status_code == 200
        assert response.json["stores"]["task_store"] != "ok"
        assert response.json["problems"]
        assert response.json["dead_letters"] is None
        assert "127.0.0.1" not in response.text


class TestModels:
    def test_each_has_its_input_and_its_rate(self, client: FlaskClient, app: Flask) -> None:
        model = services_of(app).models.get("digits")
        for number in (1, 2):
            info = LoadedModelInfo(model.name, model.version, model.digest, 0.5, images_per_s=1000.0, runtime="LiteRT")
            services_of(app).presence.announce(WorkerInfo(f"worker-{number}", (info,)))
        (told,) = client.get("/models").json["models"]
        assert (told["name"], told["version"], told["digest"]) == ("digits", model.version, model.digest)
        assert (told["input"]["shape"], told["input"]["dtype"]) == ([8, 8, 1], model.input.dtype)
        assert (told["default"], told["label_count"], told["task"]) == (True, len(model.labels), "single_label")
        assert (told["runtime"], told["images_per_s"], told["warm_workers"]) == ("LiteRT", 2000.0, 2)
        assert "labels" not in told

    def test_one_has_its_labels_and_workers(self, client: FlaskClient, app: Flask, announce: Callable[[], None]) -> None:
        announce()
        (listed,) = client.get("/models").json["models"]
        model = client.get(listed["urls"]["self"]).json
        spec = services_of(app).models.get("digits")
        assert model.items() >= listed.items()
        assert model["labels"] == list(spec.labels)
        (worker,) = model["workers"]
        assert (worker["worker"], worker["digest"], worker["predict_ms"]) == ("test-worker", spec.digest, 0.5)

    def test_one_that_no_worker_has(self, client: FlaskClient) -> None:
        model = client.get("/models/digits").json
        assert (model["workers"], model["warm_workers"], model["runtime"], model["images_per_s"]) == ([], 0, None, None)

    def test_names_the_version_that_is_served(self, client: FlaskClient, workers: Workers, no_other_process: None) -> None:
        workers.add("w", ready)
        configured = client.get("/models/digits").json
        command = {"command": "load_new_weights", "weights_url": "new.keras", "local_file": "true"}
        answer = client.post("/inference_service_controller", data=command).json["response"]
        served = client.get("/models/digits").json
        assert served["digest"] == answer["model"]["digest"] == NEW.digest != configured["digest"]

    def test_one_that_loads_other_files(self, client: FlaskClient, app: Flask, announce: Callable[[], None]) -> None:
        announce()
        assert client.get("/models/digits").json["change"] is None
        desired = services_of(app).desired
        desired.propose(Proposal("c1", "digits", NewFiles("new.keras", None)))
        desired.report("c1", ready("another"))
        desired.report("c1", LoadReport("third", error=InvalidModel("no model").to_dict()))
        assert client.get("/models/digits").json["change"]["workers"] == [
            {"worker": "another", "status": "ready", "load_s": 1.5},
            {"worker": "test-worker", "status": "loading", "load_s": None},
            {"worker": "third", "status": "failed", "load_s": 0.0},
        ]

    @pytest.mark.parametrize("name", ["unknown", "%0A", "Digits"])
    def test_one_that_there_is_none_of(self, client: FlaskClient, name: str) -> None:
        problem = assert_problem(client.get(f"/models/{name}"), 404, "model_not_found")
        assert "digits" in problem["expected"]


@pytest.mark.parametrize("path", ["/status", "/models", "/models/digits"])
def test_what_is_no_parameter(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(f"{path}?labels=true"), 400, "invalid_request", field="labels")
