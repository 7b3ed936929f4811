"""Messages that no worker can read: each is put aside, and the worker goes on as the process that it was."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests
from kombu import Connection
from support.client import wait_until
from support.parts import Parts
from support.service import ROOT
from support.unsupervised import pids, succeeds

from inference.runtime.redis import connect, kombu_url, task_store_url
from inference.settings import load_settings

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

#: Body and headers of messages that kombu sends as they are; each has an id of its own besides.
ODD: dict[str, tuple[Any, dict[str, Any]]] = {
    "items that are no list": ({}, {"task": "tasks.predict"}),
    "a count of items that is a text": ([[], {"items": []}, {}], {"task": "tasks.predict", "items": "3"}),
    "kwargs that are a list": ([[], [], {}], {"task": "tasks.predict"}),
    "a task name that is a list": ([[], {}, {}], {"task": ["tasks.predict"]}),
    "a task name that is null": ([[], {}, {}], {"task": None}),
    "an unknown task": ([[], {}, {}], {"task": "tasks.other"}),
    "one of Celery's own tasks": ([[], {}, {}], {"task": "celery.chord_unlock"}),
    "an id that is a mapping": ([[], {}, {}], {"task": "tasks.predict", "id": {"a": 1}}),
    "stamps that are a number": ([[], {"items": [{"object": "x"}]}, {}], {"task": "tasks.predict", "stamps": 7}),
    "an eta that is no time": ([[], {}, {}], {"task": "tasks.predict", "eta": "soon"}),
    "no headers": ([[], {}, {}], {}),
    "a newer format that no worker took": ([[], {"images": []}, {}], {"task": "tasks.predict", "format": 2, "put_backs": 120}),
    "protocol 1": ({"task": "tasks.predict", "id": "x", "args": [], "kwargs": {}}, {}),
}
#: Messages among these that can be read as a task, which ends with a record.
READABLE = {"a count of items that is a text", "stamps that are a number"}
#: Entries of a list of Redis that kombu did not write.
JUNK = (
    "no JSON",
    "[]",
    '{"properties": {"delivery_tag": "no-body", "delivery_info": {"routing_key": "x"}}, "headers": {"task": "tasks.predict"}}',
    '{"properties": {"delivery_tag": "odd-headers", "delivery_info": {}}, "headers": [1]}',
    # a newer format, which cannot be sent again: the number has more than 64 bits
    """{"body": "W10=", "content-type": "application/json", "content-encoding": "utf-8",
        "headers": {"id": "x", "task": "tasks.predict", "format": 2, "number": 123456789012345678901234567890},
        "properties": {"body_encoding": "base64", "delivery_tag": "newer", "priority": 5,
                       "delivery_info": {"exchange": "", "routing_key": "predict.digits"}}}""",
)


def dead_letters(parts: Parts, *arguments: str) -> str:
    command = [sys.executable, "server.py", "dead-letters", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=parts.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def put_aside(parts: Parts) -> list[str]:
    return [line.split()[0] for line in dead_letters(parts, "list").splitlines()]


def send_odd(parts: Parts, queue: str) -> int:
    """Send all of `ODD` and one in a form that is not taken; gives how many are to be put aside."""
    with Connection(kombu_url(load_settings(parts.config))) as connection, connection.Producer() as producer:
        for body, headers in ODD.values():
            producer.publish(
                body, exchange="", routing_key=queue, headers={"id": uuid.uuid4().hex} | headers, serializer="json", retry=True
            )
        producer.publish(
            b"\xff\xfe", exchange="", routing_key=queue, content_type="application/x-python-serialize", content_encoding="binary"
        )
    return len(ODD) - len(READABLE) + 1


@pytest.fixture
def redis_of_parts(on_redis: Parts) -> Iterator[redis.Redis]:
    with connect(task_store_url(load_settings(on_redis.config))) as client:
        yield client


def test_on_redis(on_redis: Parts, redis_of_parts: redis.Redis) -> None:
    before = pids(on_redis)
    for junk in JUNK:
        redis_of_parts.lpush("predict.digits", junk)
    sent = send_odd(on_redis, "predict.digits")
    assert succeeds(on_redis)
    check_put_aside(on_redis, len(JUNK) + sent)
    assert pids(on_redis) == before
    assert redis_of_parts.hlen("unacked") == 0
    assert redis_of_parts.llen("predict.digits") == 0


@pytest.mark.services
def test_on_rabbitmq(on_rabbitmq: Parts) -> None:
    before = pids(on_rabbitmq)
    assert succeeds(on_rabbitmq)  # then there is a queue
    served = requests.get(on_rabbitmq.url, timeout=30).json()["served_model"]
    sent = send_odd(on_rabbitmq, f"predict.{served}")
    assert succeeds(on_rabbitmq)
    check_put_aside(on_rabbitmq, sent)
    assert pids(on_rabbitmq) == before


def check_put_aside(parts: Parts, count: int) -> None:
    """Check that so many are listed, counted, and can be inspected, replayed and discarded."""
    listed = wait_until(lambda: _if_as_many(put_aside(parts), count), timeout_s=30, what="the messages are put aside")
    assert len(listed) == count
    assert all(one.startswith("message-") for one in listed)
    assert json.loads(status(parts))["rejected_messages"] == len(listed)
    shown = {document["message_id"]: document["reason"] for document in documents(dead_letters(parts, "inspect", *listed))}
    assert list(shown) == listed
    assert [reason for reason in shown.values() if "is of a newer version (format 2, this worker reads 1)" in reason] != []
    unknown = next(message_id for message_id, reason in shown.items() if "'tasks.other'" in reason)
    assert "is in predict." in dead_letters(parts, "replay", unknown)
    again = wait_until(lambda: _if_as_many(put_aside(parts), count), timeout_s=30, what="the replayed message is put aside again")
    dead_letters(parts, "discard", *again)
    assert put_aside(parts) == []


def _if_as_many(listed: list[str], count: int) -> list[str] | None:
    return listed if len(listed) >= count else None


def documents(text: str) -> Iterator[Any]:
    """Parse JSON documents that follow each other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def status(parts: Parts) -> str:
    command = [sys.executable, "server.py", "status", "--json"]
    return subprocess.run(command, cwd=ROOT, env=parts.environment, capture_output=True, text=True, check=False).stdout
