"""Commands in the middle of a load: no request fails, and each answer is that of the model which it names."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from sklearn.datasets import load_digits
from support.digit_models import DIGITS, describe_digits, roll_digits, save_digits_without_softmax
from support.service import Service, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})
CLIENTS = 4
MAX_BATCH_SIZE = 8
PIXELS = [(image * (255 / 16)).astype("<f4").tobytes() for image in load_digits().images[:20]]


class Models:
    """The files of this module's models, and by digest how far each rolls the classes of models/digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rolled_3 = folder / "rolled-3.keras"
        self.rolled_6 = folder / "rolled-6.keras"
        self.other = folder / "other"
        describe_digits(self.other, "other")
        files = {self.rolled_3: 3, self.rolled_6: 6, self.other / "digits.keras": 5}
        roll_digits(files)
        self.rolls = {digest_of(file): by for file, by in (files | {DIGITS / "digits.keras": 0}).items()}


def digest_of(file: Path) -> str:
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[Service]:
    """Results are for Kafka or MongoDB, which nobody runs here: they wait."""
    settings = {
        "models": ["models/digits", str(models.other)],
        "ensemble": False,
        "mongodb": {"url": "mongodb://127.0.0.1:9", "timeout_s": 1},
        "kafka": {"bootstrap_servers": "127.0.0.1:9", "timeout_s": 1},
        "worker": {"max_batch_size": MAX_BATCH_SIZE},
        "model_files": {"allowed_folders": [str(models.folder), "models"]},
        "task_store": {"lease_s": 3},
    }
    service = Service(tmp_path_factory.mktemp("service"), settings)
    try:
        service.start()
        yield service
    finally:
        service.end()


@pytest.fixture
def service(running: Service) -> Service:
    """Service in the state of its configuration, whatever an earlier test commanded."""
    for name in ("other", "digits"):
        wait_until(lambda name=name: has_loaded(running, name), timeout_s=30, what=f"{name} as configured")
    assert command(running, command="change_ensemble_mode", ensemble_mode="False").ok
    wait_until(lambda: len(running.processes("predictor")) == 1, timeout_s=30, what="one process is left")
    return running


def has_loaded(service: Service, name: str) -> bool:
    """False: a worker that a test killed counts as up for seconds, and the client is asked to come again."""
    answer = command(service, command="load_new_model", model_id=name)
    assert answer.status_code in {requests.codes.ok, requests.codes.unavailable}, answer.text
    return answer.ok


def command(service: Service, path: str = "/inference_service_controller", **fields: Any) -> requests.Response:
    """Send a command like ROHE's clients: urlencoded, so that True arrives as "True"."""
    return requests.post(service.url + path, data=fields, timeout=120)


def load_weights(service: Service, file: Path, **fields: Any) -> requests.Response:
    return command(service, command="load_new_weights", local_file=True, weights_url=str(file), **fields)


def classify(service: Service, number: int, **fields: str) -> dict[str, Any]:
    answer = service.post(PIXELS[number % len(PIXELS)], metadata=METADATA, **fields)
    assert answer.status_code == requests.codes.ok, answer.text
    document: dict[str, Any] = answer.json()
    return document | {"number": number % len(PIXELS)}


class Load:
    """Clients that classify one image after the other; `answers` grows."""

    def __init__(self, service: Service) -> None:
        self.answers: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self._service = service
        self._stopping = threading.Event()
        self._numbers = itertools.count()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.answers.append(classify(self._service, next(self._numbers)))
            except BaseException as error:  # noqa: BLE001 the test looks at it
                self.errors.append(error)

    def await_more(self, count: int = 20) -> None:
        goal = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= goal or self.errors, timeout_s=60, what="more answers")

    def stop(self) -> None:
        self._stopping.set()


@contextmanager
def load_on(service: Service) -> Iterator[Load]:
    load = Load(service)
    with ThreadPoolExecutor(CLIENTS) as clients:
        for _ in range(CLIENTS):
            clients.submit(load.run)
        try:
            load.await_more()
            yield load
            load.await_more()
        finally:
            load.stop()


def assert_right(answers: list[dict[str, Any]], models: Models, vectors: list[Any]) -> None:
    """Each answer's vector is what the model that it names says of its image."""
    for answer in answers:
        expected = np.roll(vectors[answer["number"]], models.rolls[answer["model"]["digest"]])
        np.testing.assert_allclose(answer["response"]["prediction"], expected, atol=1e-5)


def answered(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks with the first images, as `assert_right` takes them."""
    return [{"number": number, "response": task["result"], "model": task["model"]} for number, task in enumerate(tasks)]


@pytest.fixture(scope="module")
def vectors(running: Service) -> list[Any]:
    """Vectors that models/digits gives for each image."""
    return [classify(running, number, model="digits")["response"]["prediction"] for number in range(len(PIXELS))]


def test_models_and_mode_change_in_the_middle_of_a_load(service: Service, models: Models, vectors: list[Any]) -> None:
    with load_on(service) as load:
        loaded = load_weights(service, models.rolled_3)
        after_weights = classify(service, 1)
        load.await_more()
        moved = command(service, command="load_new_model", local_file=True, model_id="other")
        after_model = classify(service, 2)
        load.await_more()
        modified = command(
            service,
            "/inference",
            command="modify_weights",
            local_file="True",
            weights_url=str(models.rolled_6),
            architecture_url="",
        )
        after_second_weights = classify(service, 3)
        mode = command(service, "/inference_service", command="change_ensemble_mode", local_file=True, ensemble_mode=True)
        after_mode = service.task(classify(service, 4)["task_id"])

    assert load.errors == []
    for answer in (loaded, moved, modified, mode):
        assert answer.status_code == requests.codes.ok, answer.text
    (worker,) = loaded.json()["response"]["workers"]
    assert worker["status"] == "ready"
    assert worker["load_s"] > 0
    assert worker["model"] == loaded.json()["response"]["model"]
    assert after_weights["model"] == {
        "name": "digits",
        "version": after_weights["model"]["version"],
        "digest": digest_of(models.rolled_3),
    }
    assert after_weights["model"]["version"].startswith("1+")
    assert after_model["model"] == {"name": "other", "version": "1", "digest": digest_of(models.other / "digits.keras")}
    assert (after_second_weights["model"]["name"], after_second_weights["model"]["digest"]) == (
        "other",
        digest_of(models.rolled_6),
    )
    assert after_mode["deliveries"] == [{"sink": "kafka", "status": "pending"}]
    answers = [*load.answers, after_weights, after_model, after_second_weights]
    assert_right(answers, models, vectors)
    assert {answer["model"]["digest"] for answer in load.answers} == set(models.rolls)


def test_a_batch_that_runs_finishes_on_its_model_and_what_waits_runs_on_the_new_one(
    service: Service, models: Models, vectors: list[Any]
) -> None:
    service.suspend_predictor()
    (old,) = service.processes("predictor")
    waiting = [service.submit(PIXELS[number], metadata=METADATA) for number in range(12)]

    loaded = load_weights(service, models.rolled_3)
    assert loaded.ok, loaded.text
    after = service.submit(PIXELS[12], metadata=METADATA)
    assert len(service.processes("predictor")) == 2
    old.resume()

    tasks = [service.task(task_id, wait_s=30) for task_id in [*waiting, after]]
    assert [(task["status"], task["attempts"]) for task in tasks] == [("succeeded", 1)] * 13
    on_old = [task for task in tasks if task["model"]["version"] == "1"]
    assert 1 <= len(on_old) <= MAX_BATCH_SIZE
    assert on_old == tasks[: len(on_old)]
    assert {task["model"]["digest"] for task in tasks[len(on_old) :]} == {digest_of(models.rolled_3)}
    assert_right(answered(tasks), models, vectors)
    wait_until(lambda: not old.is_running(), timeout_s=30, what="the old process ends after its batch")
    assert len(service.processes("predictor")) == 1


def suspend_another(service: Service, *known: psutil.Process) -> psutil.Process:
    """Wait for one more predictor process, and suspend it before it has loaded anything."""
    pids = {process.pid for process in known}

    def find_others() -> list[psutil.Process]:
        return [process for process in service.processes("predictor") if process.pid not in pids]

    (another,) = wait_until(find_others, timeout_s=30, what="another predictor process")
    another.suspend()
    return another


def test_a_predictor_that_dies_while_another_model_is_loaded(service: Service, models: Models, vectors: list[Any]) -> None:
    """The command is told to come again: the worker has no model until its predictor is up again."""
    service.suspend_predictor()
    (old,) = service.processes("predictor")
    task_ids = [service.submit(PIXELS[number], metadata=METADATA) for number in range(4)]
    with ThreadPoolExecutor(1) as client:
        loading = client.submit(load_weights, service, models.rolled_3)
        candidate = suspend_another(service, old)
        old.kill()
        started_again = suspend_another(service, old, candidate)  # so that nobody misses that the worker has no model
        refused = loading.result()
        started_again.resume()
        refused = loading.result()
    assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")

    tasks = [service.task(task_id, wait_s=60) for task_id in task_ids]
    assert [task["status"] for task in tasks] == ["succeeded"] * 4
    assert max(task["attempts"] for task in tasks) == 2
    assert_right(answered(tasks), models, vectors)
    wait_until(lambda: len(service.processes("predictor")) == 1, timeout_s=30, what="one process is left")
    wait_until(lambda: load_weights(service, models.rolled_3).ok, timeout_s=60, what="the command comes again")
    assert classify(service, 0)["model"]["digest"] == digest_of(models.rolled_3)


def test_a_worker_that_starts_later_comes_up_with_the_changed_model(service: Service, models: Models) -> None:
    assert load_weights(service, models.rolled_6).ok

    service.kill("worker")

    # Answered by the one that comes up: it may be there before anybody has missed the other.
    assert classify(service, 0)["model"]["digest"] == digest_of(models.rolled_6)
    index = requests.get(service.url, timeout=60).json()
    assert index["model"]["digest"] == digest_of(models.rolled_6)


def test_a_bad_file_leaves_the_old_model_and_says_why(service: Service, models: Models) -> None:
    bad = models.folder / "bad.keras"
    bad.write_bytes(b"no model")

    with load_on(service) as load:
        refused = load_weights(service, bad)
        missing = load_weights(service, models.folder / "missing.keras")

    assert load.errors == []
    assert {answer["model"]["version"] for answer in load.answers} == {"1"}
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_model")
    assert "bad.keras" in refused.json()["detail"]
    assert "stays as it is" in refused.json()["detail"]
    (reason,) = refused.json()["workers"].values()
    assert "bad.keras" in reason
    assert (missing.status_code, missing.json()["code"]) == (404, "object_not_found")
    assert bad.exists()


def test_a_model_without_probabilities_leaves_the_old_one_and_says_what_to_do(service: Service, models: Models) -> None:
    logits = models.folder / "logits.keras"
    save_digits_without_softmax(logits)
    refused = load_weights(service, logits)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_model")
    assert "stays as it is" in refused.json()["detail"]
    assert "must return probabilities" in refused.json()["detail"]
    assert "keras.layers.Softmax()" in refused.json()["detail"]
    answer = classify(service, 0)
    assert answer["model"]["version"] == "1"
    assert 0 <= answer["response"]["confidence_level"] <= 1


def test_what_is_unknown(service: Service) -> None:
    for path in ("/inference", "/inference_service", "/inference_service_controller"):
        unknown_model = command(service, path, command="load_new_model", model_id="vgg_9")
        assert (unknown_model.status_code, unknown_model.json()["code"]) == (404, "model_not_found")
        unknown_command = command(service, path, command="load_everything")
        assert (unknown_command.status_code, unknown_command.json()["code"]) == (400, "unknown_command")


def test_commands_that_come_together_go_one_after_the_other(service: Service, models: Models) -> None:
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda file: load_weights(service, file), [models.rolled_3, models.rolled_6]))

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (done,) = [answer for answer in answers if answer.ok]
    (refused,) = [answer for answer in answers if not answer.ok]
    assert refused.json()["code"] == "change_in_progress"
    assert int(refused.headers["Retry-After"]) >= 1
    assert classify(service, 0)["model"] == done.json()["response"]["model"]
