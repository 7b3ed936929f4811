"""Commands over HTTP: how they are read, what becomes of them, and that they hold for every API process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from api_rig import FakeWorker, assert_problem, post, post_async, raw_form, services_of, wait_until
from command_workers import NEW, Workers, ready
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from inference.domain import ModelRef
from inference.errors import InvalidModel, ObjectNotFound
from inference.rollout.desired_state import DesiredState, LoadReport, NewFiles, Proposal
from inference.rollout.runtime_config import READING_AGE_S

pytestmark = pytest.mark.usefixtures("no_other_process")

CONTROLLER = "/inference_service_controller"
PATHS = [CONTROLLER, "/inference", "/inference_service"]
OTHERS = ModelRef("digits", "1+cd", "sha256:cd")


def bad_file(worker: str) -> LoadReport:
    return LoadReport(worker, error=InvalidModel("digits: Keras cannot read it").to_dict())


def no_file(worker: str) -> LoadReport:
    return LoadReport(worker, error=ObjectNotFound("there is no file /m.keras").to_dict())


def load_weights(client: FlaskClient, path: str = CONTROLLER, **fields: Any) -> TestResponse:
    defaults = {"command": "load_new_weights", "local_file": "True", "weights_url": "/m.keras"}
    return client.post(path, data=defaults | fields)


def state_of(app: Flask) -> Any:
    return services_of(app).desired.read()


class TestReading:
    @pytest.mark.parametrize("path", PATHS)
    def test_an_unknown_command(self, client: FlaskClient, path: str) -> None:
        problem = assert_problem(client.post(path, data={"command": "explode"}), 400, "unknown_command", field="command")
        assert "load_new_weights" in problem["expected"]

    @pytest.mark.parametrize("fields", [{}, {"command": ""}, {"local_file": "True"}])
    def test_no_command(self, client: FlaskClient, fields: dict[str, str]) -> None:
        for response in (client.post(CONTROLLER, data=fields), client.post(CONTROLLER, json=fields)):
            problem = assert_problem(response, 400, "unknown_command", field="command")
            assert problem["detail"] == "command is missing"

    @pytest.mark.parametrize("name", ["Command", "comand", "commands"])
    def test_a_command_under_a_name_that_is_near(self, client: FlaskClient, name: str) -> None:
        fields = {name: "load_new_model", "model_id": "digits"}
        for response in (client.post(CONTROLLER, data=fields), client.post(CONTROLLER, json=fields)):
            problem = assert_problem(response, 400, "invalid_request", field=name)
            assert "did you mean command?" in problem["detail"]

    @pytest.mark.parametrize("path", [*PATHS, "/inference/batch"])
    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data; boundary=x",
        ],
    )
    @pytest.mark.parametrize(
        "body", [b'{"command": "load_new_model"}', b'\n{"model_id": "digits",\n "command": "load_new_model"}']
    )
    def test_json_of_another_type(self, client: FlaskClient, path: str, content_type: str, body: bytes) -> None:
        response = client.post(path, data=body, content_type=content_type)
        problem = assert_problem(response, 400, "invalid_request", field="Content-Type")
        assert problem["expected"] == "Content-Type: application/json"

    def test_json_without_a_type(self, client: FlaskClient) -> None:
        problem = assert_problem(client.post(CONTROLLER, data=b'{"command": "x"}'), 400, "invalid_request", field="Content-Type")
        assert "JSON" in problem["detail"]

    def test_an_image_alone(self, client: FlaskClient) -> None:
        for response in (
            client.post(CONTROLLER, data=raw_form()),
            client.post(CONTROLLER, data=b"1", content_type="image/png"),
        ):
            problem = assert_problem(response, 400, "invalid_request", field="image")
            assert "takes commands, not images" in problem["detail"]

    @pytest.mark.parametrize(
        ("fields", "missing"),
        [
            ({"command": "change_ensemble_mode"}, "ensemble_mode"),
            ({"command": "change_ensemble_mode", "ensemble_mode": "maybe"}, "ensemble_mode"),
            ({"command": "load_new_model", "model_id": " "}, "model_id"),
            ({"command": "load_new_weights", "local_file": "True"}, "weights_url"),
            ({"command": "modify_weights", "weights_url": "w", "local_file": "perhaps"}, "local_file"),
        ],
    )
    def test_what_is_missing_or_wrong_is_named(self, client: FlaskClient, fields: dict[str, str], missing: str) -> None:
        assert_problem(client.post(CONTROLLER, data=fields), 400, "invalid_request", field=missing)

    @pytest.mark.parametrize("body", [b"{", b"[]", b'"load_new_model"'])
    def test_json_that_is_no_object(self, client: FlaskClient, body: bytes) -> None:
        assert_problem(client.post(CONTROLLER, data=body, content_type="application/json"), 400, "invalid_request")

    def test_a_field_of_json_that_is_no_text(self, client: FlaskClient) -> None:
        answer = client.post(CONTROLLER, json={"command": "load_new_model", "model_id": ["digits"]})
        assert_problem(answer, 400, "invalid_request", field="model_id")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("kind", ["urlencoded", "multipart", "json"])
    def test_every_path_and_kind_of_body(self, client: FlaskClient, workers: Workers, path: str, kind: str) -> None:
        workers.add("w", ready)
        fields = {"command": "load_new_model", "local_file": "True", "model_id": "digits"}
        if kind == "json":
            answer = client.post(path, json=fields | {"local_file": True})
        else:
            content_type = {"urlencoded": "application/x-www-form-urlencoded", "multipart": "multipart/form-data"}[kind]
            answer = client.post(path, data=fields, content_type=content_type)
        assert answer.status_code == 200, answer.data
        assert answer.json["response"]["served_model"] == "digits"


class TestFiles:
    @pytest.mark.parametrize("command", ["load_new_weights", "modify_weights"])
    @pytest.mark.parametrize("local", ["True", "true", "1"])
    def test_a_local_file_is_a_path_of_the_worker(self, client: FlaskClient, workers: Workers, command: str, local: str) -> None:
        workers.add("w", ready)
        answer = load_weights(client, command=command, local_file=local, weights_url="/m.h5", architecture_url="/m.json")
        assert answer.status_code == 200, answer.data
        assert workers.seen[-1].files == NewFiles("/m.h5", "/m.json")

    @pytest.mark.parametrize("fields", [{}, {"local_file": "False"}, {"local_file": "0"}, {"local_file": ""}])
    def test_else_it_is_an_object_of_the_model_bucket(
        self, client: FlaskClient, workers: Workers, fields: dict[str, str]
    ) -> None:
        workers.add("w", ready)
        data = {"command": "load_new_weights", "weights_url": "a/m.h5", "architecture_url": "s3://elsewhere/m.json"} | fields
        assert client.post(CONTROLLER, data=data).status_code == 200
        assert workers.seen[-1].files == NewFiles("s3://inference/a/m.h5", "s3://elsewhere/m.json")

    @pytest.mark.parametrize("name", ["model", "model_id"])
    def test_a_model_may_be_named(self, client: FlaskClient, workers: Workers, name: str) -> None:
        workers.add("w", ready)
        assert load_weights(client, **{name: "digits"}).status_code == 200
        assert_problem(load_weights(client, **{name: "vgg"}), 404, "model_not_found", field="model_id")


class TestEveryWorkerIsReady:
    def test_new_tasks_are_accepted_for_it(self, app: Flask, client: FlaskClient, workers: Workers) -> None:
        for name in ("w1", "w2"):
            workers.add(name, ready)
        response = load_weights(client).json["response"]
        assert response["model"] == {"name": "digits", "version": "1+ab", "digest": "sha256:ab"}
        assert response["workers"] == [
            {"worker": name, "status": "ready", "model": response["model"], "load_s": 1.5} for name in ("w1", "w2")
        ]
        task = client.get(f"/tasks/{post_async(client)}").json
        assert task["model"] == response["model"]
        assert client.get("/").json["model"] == response["model"]
        assert state_of(app).models["digits"].model == NEW

    def test_a_worker_that_comes_up_meanwhile_is_waited_for(self, app: Flask, client: FlaskClient, workers: Workers) -> None:
        def ready_and_not_alone(worker: str) -> LoadReport:
            workers.add("w2", None)
            return ready(worker)

        workers.add("w1", ready_and_not_alone)
        answers: list[TestResponse] = []
        calling = threading.Thread(target=lambda: answers.append(load_weights(client)), daemon=True)
        calling.start()
        wait_until(lambda: "w2" in workers.answers, "the second worker")
        wait_until(lambda: workers.seen, "the proposal")
        assert state_of(app) == DesiredState()
        services_of(app).desired.report(workers.seen[-1].change_id, ready("w2"))
        calling.join(10)
        assert [worker["worker"] for worker in answers[0].json["response"]["workers"]] == ["w1", "w2"]

    def test_the_answer_comes_when_each_serves_it(self, app: Flask, client: FlaskClient, workers: Workers) -> None:
        workers.add("w", ready)
        workers.switches = False
        answers: list[TestResponse] = []
        calling = threading.Thread(target=lambda: answers.append(load_weights(client)), daemon=True)
        calling.start()
        wait_until(lambda: state_of(app).models, "the commit")
        calling.join(0.5)
        assert answers == []
        workers.switches = True
        calling.join(10)
        assert answers[0].status_code == 200

    def test_one_that_does_not_switch_is_not_waited_for_for_ever(
        self, client: FlaskClient, workers: Workers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.commands._SWITCH_TIMEOUT_S", 0.1)
        workers.add("w", ready)
        workers.switches = False
        assert load_weights(client).status_code == 200

    def test_back_to_the_configurations_files(self, app: Flask, client: FlaskClient, workers: Workers) -> None:
        workers.add("w", ready)
        assert load_weights(client).status_code == 200
        digits = services_of(app).models.get("digits")
        configured = ModelRef(digits.name, digits.version, digits.digest)
        workers.answers["w"] = lambda worker: LoadReport(worker, configured)
        answer = client.post(CONTROLLER, data={"command": "load_new_model", "model_id": "digits"})
        assert answer.json["response"]["model"]["digest"] == digits.digest
        assert workers.seen[-1].files is None
        assert (state_of(app).models, state_of(app).served) == ({}, "digits")


class TestOneWorkerIsNot:
    @pytest.fixture(autouse=True)
    def nothing_changes(self, app: Flask) -> Iterator[None]:
        yield
        assert services_of(app).desired.read_with_proposal() == (DesiredState(), None)

    @pytest.mark.parametrize(
        ("answer", "problem_code", "reason"),
        [
            (bad_file, (400, "invalid_model"), "Keras cannot read it"),
            (no_file, (404, "object_not_found"), "there is no file"),
        ],
    )
    def test_the_old_model_stays_and_the_answer_says_why(
        self,
        client: FlaskClient,
        workers: Workers,
        answer: Callable[[str], LoadReport],
        problem_code: tuple[int, str],
        reason: str,
    ) -> None:
        workers.add("w1", ready)
        workers.add("w2", answer)
        problem = assert_problem(load_weights(client), *problem_code)
        assert problem["detail"].startswith("digits stays as it is: ")
        assert reason in problem["detail"]
        assert reason in problem["workers"]["w2"]

    def test_files_that_differ_between_hosts(self, client: FlaskClient, workers: Workers) -> None:
        workers.add("w1", ready)
        workers.add("w2", lambda worker: LoadReport(worker, OTHERS))
        problem = assert_problem(load_weights(client), 400, "invalid_model")
        assert "not the same on every worker's host" in problem["detail"]
        assert set(problem["workers"]) == {"w1", "w2"}

    def test_one_that_dies_while_it_loads(self, app: Flask, client: FlaskClient, workers: Workers) -> None:
        def die(worker: str) -> LoadReport:
            services_of(app).presence.leave("w2")
            return ready(worker)

        workers.add("w1", die)
        workers.add("w2", None)
        problem = assert_problem(load_weights(client), 503, "service_unavailable")
        assert "w2 went away while it loaded" in problem["detail"]

    def test_one_that_takes_too_long(self, make_app: Any, redis_client: redis.Redis) -> None:
        app = make_app(worker={"load_timeout_s": 0.1})
        workers = Workers(app, redis_client)
        workers.add("w1", None)
        problem = assert_problem(load_weights(app.test_client()), 503, "service_unavailable")
        assert "w1 did not load it in time" in problem["detail"]

    @pytest.mark.parametrize(
        "fields", [{"command": "load_new_weights", "weights_url": "w"}, {"command": "load_new_model", "model_id": "digits"}]
    )
    def test_nobody_is_there(self, client: FlaskClient, fields: dict[str, str]) -> None:
        answer = client.post(CONTROLLER, data=fields)
        problem = assert_problem(answer, 503, "service_unavailable")
        assert "-Q predict.digits" in problem["expected"]
        assert answer.headers["Retry-After"]

    def test_an_unknown_model(self, client: FlaskClient) -> None:
        answer = client.post(CONTROLLER, data={"command": "load_new_model", "model_id": "vgg_0"})
        assert_problem(answer, 404, "model_not_found", field="model_id")


def test_a_second_command_is_told_to_come_later(app: Flask, client: FlaskClient, workers: Workers) -> None:
    workers.add("w", ready)
    services_of(app).desired.propose(Proposal("another", "digits", NewFiles("/m.keras")))
    answer = load_weights(client)
    assert_problem(answer, 409, "change_in_progress")
    assert int(answer.headers["Retry-After"]) >= 1
    services_of(app).desired.withdraw("another")
    assert load_weights(client).status_code == 200


class TestEnsembleMode:
    @pytest.mark.parametrize("configured", [True, False])
    def test_results_of_later_tasks_go_elsewhere(self, make_app: Any, redis_client: redis.Redis, configured: bool) -> None:
        app = make_app(ensemble=configured)
        client, worker = app.test_client(), FakeWorker(services_of(app), redis_client)
        sinks: list[str] = []
        for mode in (configured, not configured, configured):
            answer = client.post(
                "/inference", data={"command": "change_ensemble_mode", "local_file": "True", "ensemble_mode": str(mode)}
            )
            assert answer.json["response"]["ensemble_mode"] is mode
            task_id = post_async(client)
            worker.work_off()
            sinks += [delivery["sink"] for delivery in client.get(f"/tasks/{task_id}").json["deliveries"]]
        assert sinks == (["kafka", "mongodb", "kafka"] if configured else ["mongodb", "kafka", "mongodb"])

    def test_where_nothing_delivers_it_is_refused(self, app: Flask, client: FlaskClient) -> None:
        answer = client.post(CONTROLLER, data={"command": "change_ensemble_mode", "ensemble_mode": "True"})
        problem = assert_problem(answer, 409, "sink_not_configured", field="ensemble_mode")
        assert "kafka" in problem["detail"]
        assert "ensemble" in problem["expected"]
        assert state_of(app) == DesiredState()

    def test_a_request_may_still_name_either(self, make_app: Any) -> None:
        client = make_app(ensemble=False).test_client()
        assert post(client, raw_form(sinks="kafka"), headers={"Prefer": "respond-async"}).status_code == 202
        assert_problem(post(client, raw_form(sinks="jsonl")), 400, "invalid_metadata", field="metadata.sinks")


class TestAnotherApiProcess:
    def test_it_follows_once_a_command_is_answered(
        self, make_app: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.commands.READING_AGE_S", READING_AGE_S)
        commanded, other = make_app(ensemble=False), make_app(ensemble=False)
        workers = Workers(commanded, redis_client)
        workers.add("w", ready)
        workers.start()
        client = other.test_client()
        before = client.get(f"/tasks/{post_async(client)}").json["model"]
        assert load_weights(commanded.test_client()).status_code == 200
        after_weights = post_async(client)
        assert commanded.test_client().post(CONTROLLER, data={"command": "change_ensemble_mode", "ensemble_mode": "1"}).json
        after_mode = post_async(client)
        workers.stop()

        assert before["version"] == "1"
        assert client.get(f"/tasks/{after_weights}").json["model"] == {
            "name": "digits",
            "version": "1+ab",
            "digest": "sha256:ab",
        }
        key_prefix = services_of(commanded).settings.task_store.key_prefix
        assert redis_client.hget(f"{key_prefix}:task:{after_mode}", "sinks") == b"kafka"

    def test_one_that_starts_later(self, app: Flask, make_app: Any) -> None:
        services_of(app).desired.serve("digits")
        assert make_app().test_client().get("/").json["served_model"] == "digits"

    def test_a_served_model_that_is_not_configured_any_more_counts_for_nothing(self, app: Flask, client: FlaskClient) -> None:
        services_of(app).desired.serve("gone")
        assert client.get("/").json["served_model"] == "digits"
        assert client.get(f"/tasks/{post_async(client)}").json["model"]["name"] == "digits"


def test_commands_need_the_store(make_app: Any, tmp_path: Any) -> None:
    client = make_app(broker={"url": f"unix://{tmp_path}/nobody.sock"}).test_client()
    assert_problem(load_weights(client), 503, "service_unavailable")
    assert client.get("/").json["served_model"] == "digits"
