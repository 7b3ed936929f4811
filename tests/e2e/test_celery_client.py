"""A plain Celery client: it has Celery, the broker's URL and an object in the store, and nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from support.celery_user import CeleryUser, zero
from support.file_sink import file_documents
from support.service import wait_until

from inference.runtime.redis import kombu_url
from inference.settings import load_settings

pytestmark = pytest.mark.process

#: As docs/celery.md has it.
CLIENT = """
import sys
from celery import Celery

url, queue, key = sys.argv[1:]
app = Celery(broker=url)
app.conf.task_create_missing_queue_type = "quorum"  # RabbitMQ: as the service makes its queues
result = app.send_task("tasks.predict", kwargs={"items": [{"object": key, "request_id": "cat-1"}]}, queue=queue)
print(result.id)
"""
RAW = {"shape": [8, 8, 1], "dtype": "<f4"}


@pytest.fixture
def user(celery_user: CeleryUser, repository: Path) -> CeleryUser:
    folder = celery_user.service.data_dir / "uploads" / "uploads" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seven.png").write_bytes((repository / "samples/digit_7.png").read_bytes())
    (folder / "zero.bin").write_bytes(zero())
    celery_user.app.conf.task_create_missing_queue_type = "quorum"
    return celery_user


def send(user: CeleryUser, kwargs: Any, **options: Any) -> str:
    return str(user.app.send_task("tasks.predict", kwargs=kwargs, queue=user.queue, **options).id)


def ended(user: CeleryUser, task_id: str) -> dict[str, Any]:
    """The task, once it has a record and that has an end."""

    def found() -> dict[str, Any] | None:
        response = requests.get(f"{user.service.url}/tasks/{task_id}", timeout=20)
        task: dict[str, Any] = response.json()
        return task if response.ok and task["finished_at"] else None

    task: dict[str, Any] = wait_until(found, timeout_s=30, what=f"the end of {task_id}")
    return task


def test_a_script_sends_the_documented_task_and_gets_its_record(user: CeleryUser, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT, encoding="utf-8")
    url = kombu_url(load_settings(user.service.config))
    command = [sys.executable, str(script), url, user.queue, "uploads/mine/seven.png"]
    sent = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode == 0, sent.stderr
    task_id = sent.stdout.strip()

    task = ended(user, task_id)
    assert (task["status"], task["result"]["class"], task["request_id"], task["attempts"]) == ("succeeded", 7, "cat-1", 1)
    assert user.queue == f"predict.{task['model']['name']}"
    assert task["model"]["digest"].startswith("sha256:")
    wait_until(lambda: task_id in delivered(user), timeout_s=20, what="its result is in the sink")
    assert delivered(user).count(task_id) == 1


def delivered(user: CeleryUser) -> list[str]:
    return [document["task_id"] for document in file_documents(user.service.data_dir)]


def test_it_is_typed_too(user: CeleryUser) -> None:
    kwargs = {"items": [{"object": "uploads/mine/zero.bin", **RAW}], "deadline_s": 60, "sinks": []}
    typed = user.run("call", "tasks.predict", "--kwargs", json.dumps(kwargs), "--queue", user.queue)
    task = ended(user, typed.stdout.strip())
    assert (task["status"], task["result"]["class"], task["deliveries"]) == ("succeeded", 0, [])


def test_several_items_are_tasks_of_their_own(user: CeleryUser) -> None:
    items = [
        {"object": "uploads/mine/seven.png"},
        {"object": "uploads/mine/gone.png"},
        {"object": "uploads/mine/zero.bin", **RAW, "task_id": f"mine-{user.queue}"},
    ]
    message_id = send(user, {"items": items})
    ids = [f"{message_id}.0", f"{message_id}.1", f"mine-{user.queue}"]
    tasks = [ended(user, task_id) for task_id in ids]
    assert [task["status"] for task in tasks] == ["succeeded", "failed", "succeeded"]
    assert tasks[1]["error"]["code"] == "object_not_found"
    found = requests.get(f"{user.service.url}/tasks", params={"request_id": message_id}, timeout=20).json()
    assert [task["task_id"] for task in found["tasks"]] == ids[::-1]  # newest first


def test_what_is_wrong_is_in_the_event_and_in_the_record(user: CeleryUser) -> None:
    with user.events() as events:
        malformed = send(user, {"item": []})
        foreign = send(user, {"items": [{"object": "../../etc/passwd"}]})
        chained = user.app.signature("tasks.predict", kwargs={"items": []}, queue=user.queue, link=user.app.signature("x"))
        chained_id = chained.apply_async().id
        events.wait("failed", malformed, foreign, chained_id)
    for task_id, field in ((malformed, "items"), (foreign, "items.0.object")):
        task = ended(user, task_id)
        assert (task["status"], task["error"]["code"], task["error"]["field"]) == ("failed", "invalid_metadata", field)
        assert events.types(task_id) == ["received", "failed"]
        assert "InvalidMetadata" in events.of[task_id][-1]["exception"]
    assert "chords are not supported" in events.of[chained_id][-1]["exception"]
    assert user.inspect("reserved") == user.inspect("active") == []


def test_a_message_that_comes_again_does_not_start_again(user: CeleryUser) -> None:
    kwargs = {"items": [{"object": "uploads/mine/seven.png"}]}
    with user.events() as events:
        task_id = send(user, kwargs)
        events.wait("succeeded", task_id)
    first = ended(user, task_id)
    with user.events() as events:
        assert send(user, kwargs, task_id=task_id) == task_id
        events.wait("succeeded", task_id)
    assert events.types(task_id) == ["received", "succeeded"]
    assert ended(user, task_id) == first | {"deliveries": ended(user, task_id)["deliveries"]}


def test_messages_that_are_none_break_nothing(user: CeleryUser) -> None:
    with user.app.connection() as connection, connection.channel() as channel:
        producer = connection.Producer(channel, routing_key=user.queue)
        headers = {"task": "tasks.predict", "id": "strange", "lang": "py"}
        for body in ([], [[], {}], [[], None, None], [[], {}, None], "text", "abc", 5, None):
            producer.publish(body, serializer="json", headers=headers)
        model, item = {"name": "n", "version": "1", "digest": "d"}, {"task_id": "t", "object_key": "k", "header": None}
        for kwargs in (
            {"model": model},
            {"model": model | {"name": []}, "items": [item]},
            {"model": model, "items": [item]},
            {"model": model, "items": [item | {"task_id": []}]},
            {"model": model, "items": [item | {"header": 5}]},
        ):
            producer.publish([[], kwargs, {}], serializer="json", headers=headers)
        producer.publish([[], {}, {}], serializer="json", headers={"task": "tasks.predict", "lang": "py"})
        producer.publish({"task": "tasks.predict", "id": "old", "args": [], "kwargs": {}}, serializer="json")
        producer.publish(b"\xff", content_type="application/octet-stream", content_encoding="binary")
    assert ended(user, send(user, {"items": [{"object": "uploads/mine/seven.png"}]}))["status"] == "succeeded"
    wait_until(lambda: user.inspect("reserved") == [], timeout_s=20, what="nothing is held")


def test_a_message_waits_for_its_time(user: CeleryUser) -> None:
    task_id = send(user, {"items": [{"object": "uploads/mine/seven.png"}]}, countdown=4)
    (scheduled,) = wait_until(lambda: user.inspect("scheduled"), timeout_s=60, what="the scheduled message")
    assert scheduled["request"]["id"] == task_id
    assert requests.get(f"{user.service.url}/tasks/{task_id}", timeout=20).status_code == requests.codes.not_found
    assert ended(user, task_id)["status"] == "succeeded"


def test_a_message_that_has_expired_does_not_run(user: CeleryUser) -> None:
    """Put on the queue as it is: `send_task` has RabbitMQ drop it on the way."""
    task_id = f"expired-{user.queue}"
    headers = {"task": "tasks.predict", "id": task_id, "lang": "py", "expires": "2020-01-01T00:00:00+00:00"}
    body = [[], {"items": [{"object": "uploads/mine/seven.png"}]}, {}]
    with user.events() as events, user.app.connection() as connection, connection.channel() as channel:
        connection.Producer(channel, routing_key=user.queue).publish(body, serializer="json", headers=headers)
        events.wait("failed", task_id)
    assert (ended(user, task_id)["status"], ended(user, task_id)["attempts"]) == ("expired", 0)
    assert "DeadlineExceeded" in events.of[task_id][-1]["exception"]


def test_a_revoke_may_come_before_the_message(user: CeleryUser) -> None:
    task_id = f"revoked-{user.queue}"
    user.app.control.revoke(task_id, destination=[user.node], reply=True, limit=1, timeout=20)
    with user.events() as events:
        send(user, {"items": [{"object": "uploads/mine/seven.png"}]}, task_id=task_id)
        events.wait("revoked", task_id)
    assert ended(user, task_id)["status"] == "canceled"
