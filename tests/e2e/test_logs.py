"""Log of a running service with keys and webhooks, at the level DEBUG: fields in the lines of each process, and no secrets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from support.client import wait_until
from support.keys import key_document, new_key
from support.receiver import Receiver, Reply, running_receiver
from support.service import ROOT, Service

from inference.access import Role

pytestmark = pytest.mark.process

SEVEN = (ROOT / "samples" / "digit_7.png").read_bytes()
#: A valid head, and pixels that cannot be decoded.
BROKEN = SEVEN[: len(SEVEN) // 2] + b"\xff" * (len(SEVEN) // 2)
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"a-secret-of-webhooks-of-this-test").decode()
URL_SIGNATURE = "5ecre7ofapresignedurl"
TIMEOUT_S = 60

Line = dict[str, Any]


@dataclass
class Logged:
    """The service, and the requests that were sent to it."""

    service: Service
    key: str
    #: ids of tasks by their end
    tasks: dict[str, str]
    #: signature of an upload's URL
    signature: str

    @property
    def lines(self) -> list[Line]:
        """Lines in JSON; the others are those that `server.py` prints for people."""
        complete, _, _ = self.service.log.rpartition("\n")
        return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]

    def wait_for(self, **fields: Any) -> Line:
        def found() -> Line | None:
            return next((line for line in self.lines if fields.items() <= line.items()), None)

        line: Line = wait_until(found, timeout_s=TIMEOUT_S, what=f"a line with {fields}")
        return line


def answering(request: Any, _: Any) -> Reply:
    """An image for GET; the first event of a webhook is refused."""
    return Reply(body=SEVEN) if request.method == "GET" else Reply(500)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder: Path = tmp_path_factory.mktemp("logged")
    text, key = new_key("ada", Role.ADMIN)
    (folder / "keys.json").write_text(json.dumps(key_document(key)), encoding="utf-8")
    with running_receiver() as receiver:
        receiver.reply = answering
        network = {"allow_http": True, "ports": [receiver.port], "private_networks": ["127.0.0.0/8"]}
        settings = {
            "models": ["models/digits"],
            "security": {"keys_file": str(folder / "keys.json")},
            "image_urls": network | {"enabled": True},
            "webhooks": network | {"secret": WEBHOOK_SECRET, "backoff_s": 1},
            "log": {"level": "DEBUG"},
        }
        service = Service(folder, settings, variables={"FORCE_COLOR": ""})
        try:
            service.start()
            yield Logged(service, text, *use(service, text, receiver))
        finally:
            service.end()


def use(service: Service, key: str, receiver: Receiver) -> tuple[dict[str, str], str]:
    """Send images in each way; returns tasks by their end, and the signature of an upload."""
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "my-request"}
    url = f"http://127.0.0.1:{receiver.port}"
    answer = service.post(SEVEN, headers=headers)
    assert answer.status_code == 200, answer.text
    tasks = {"succeeded": answer.json()["task_id"]}
    failed = service.post(BROKEN, headers=headers, request_id="photo-17", webhook=url)
    assert failed.json()["code"] == "invalid_image", failed.text
    tasks["failed"] = failed.json()["task_id"]
    encoded = {"image": {"base64": base64.b64encode(SEVEN).decode()}}
    assert requests.post(f"{service.url}/inference", json=encoded, headers=headers, timeout=60).status_code == 200
    named = {"image": {"url": f"{url}/seven.png?X-Amz-Signature={URL_SIGNATURE}"}}
    assert requests.post(f"{service.url}/inference", json=named, headers=headers, timeout=60).status_code == 200
    upload = requests.post(f"{service.url}/uploads", headers=headers, timeout=60).json()
    assert requests.put(upload["url"], data=SEVEN, timeout=60).status_code == 200
    files = [("image", ("a.png", SEVEN)), ("image", ("b.png", BROKEN))]
    batch = requests.post(f"{service.url}/inference/batch", files=files, headers=headers, timeout=60)
    tasks["batch"] = batch.headers["Batch-Id"]
    assert service.post(SEVEN, headers={"Authorization": f"Bearer {key[:-1]}x"}).status_code == 401
    service.suspend_predictor()
    late = service.post_with_short_deadline(SEVEN, headers=headers, mode="async")
    tasks["expired"] = late.json()["task_id"]
    task_url = f"{service.url}/tasks/{tasks['expired']}"
    wait_until(
        lambda: requests.get(task_url, headers=headers, timeout=60).json()["status"] == "expired",
        timeout_s=TIMEOUT_S,
        what="the deadline",
    )
    (predictor,) = service.processes("predictor")
    predictor.resume()
    return tasks, upload["url"].partition("signature=")[2]


def test_every_line_is_json_outside_of_a_terminal(logged: Logged) -> None:
    processes = {line["process"] for line in logged.lines}
    assert processes >= {"api", "worker", "relay"}
    for line in logged.lines:
        assert {"time", "level", "process", "logger"} <= line.keys()


def test_a_request_is_a_line_with_its_status_its_time_and_its_task(logged: Logged) -> None:
    line = logged.wait_for(logger="access", task_id=logged.tasks["succeeded"], method="POST")
    assert (line["route"], line["status"], line["request_id"]) == ("/inference", 200, "my-request")
    assert (line["model"], line["owner"], line["process"]) == ("digits", "ada", "api")
    assert line["duration_ms"] > 0
    assert line["bytes"] > 0
    assert line["message"] == "POST /inference 200"
    assert logged.wait_for(logger="access", task_id=logged.tasks["failed"])["status"] >= 400
    assert logged.wait_for(logger="access", batch_id=logged.tasks["batch"])["route"] == "/inference/batch"
    asked = logged.wait_for(logger="access", task_id=logged.tasks["expired"], method="GET")
    assert asked["route"] == "/tasks/{task_id}"
    refused = logged.wait_for(logger="access", status=401)
    assert "owner" not in refused


def test_a_request_that_matches_no_route_is_a_line_with_its_path_and_without_its_query(logged: Logged) -> None:
    headers = {"Authorization": f"Bearer {logged.key}"}
    url = f"{logged.service.url}/no/\u202e/such?token=a-token-in-a-query"
    assert requests.get(url, headers=headers, timeout=60).status_code == 404
    line = logged.wait_for(logger="access", status=404)
    assert line["path"].startswith("/no/")
    assert line["path"].isprintable()
    assert "route" not in line
    assert "a-token-in-a-query" not in logged.service.log


def test_a_probe_is_a_line_of_the_level_debug(logged: Logged) -> None:
    assert logged.service.is_ready()
    assert logged.wait_for(logger="access", route="/health/ready", status=200)["level"] == "DEBUG"


def test_the_worker_says_why_a_task_failed(logged: Logged) -> None:
    line = logged.wait_for(process="worker", task_id=logged.tasks["failed"])
    assert (line["model"], line["owner"], line["request_id"]) == ("digits", "ada", "photo-17")
    assert line["message"].startswith(f"task {logged.tasks['failed']} failed: ")
    assert logged.wait_for(process="worker", batch_id=logged.tasks["batch"])["model"] == "digits"


def test_the_relay_says_that_a_webhook_was_refused_and_a_task_expired(logged: Logged) -> None:
    event = logged.wait_for(process="relay", logger="inference.relay.webhooks", task_id=logged.tasks["failed"])
    assert (event["owner"], event["level"]) == ("ada", "WARNING")
    expired = logged.wait_for(logger="inference.lifecycle.task_log", task_id=logged.tasks["expired"])
    assert (expired["model"], expired["owner"], expired["level"]) == ("digits", "ada", "INFO")
    assert "expired" in expired["message"]


def test_no_line_has_a_secret_or_bytes_of_an_image(logged: Logged) -> None:
    logged.wait_for(logger="inference.lifecycle.task_log", task_id=logged.tasks["expired"])
    log = logged.service.log
    assert any(line["level"] == "DEBUG" for line in logged.lines)
    encoded = base64.b64encode(SEVEN).decode()
    secrets = {
        "key": logged.key[14:],
        "secret of webhooks": WEBHOOK_SECRET.removeprefix("whsec_"),
        "signature of a URL": URL_SIGNATURE,
        "signature of an upload": logged.signature,
        "base64": encoded[100:130],
        "bytes": repr(SEVEN[100:130])[2:-1].replace("\\", "\\\\"),
        "bytes as they are": repr(SEVEN[100:130])[2:-1],
    }
    assert logged.signature
    assert [name for name, secret in secrets.items() if secret in log] == []
