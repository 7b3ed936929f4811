"""The trace context of a request goes into the records of its tasks, also while traces are off; else a record has none."""

from __future__ import annotations

from typing import Any

import redis
from api_rig import post_batch, raw_form, services_of
from flask import Flask
from flask.testing import FlaskClient

from inference.lifecycle.task_log import record_fields

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
SENT = {"traceparent": PARENT, "tracestate": "vendor=value"}


def submit(client: FlaskClient, headers: dict[str, str]) -> str:
    answer = client.post("/inference", data=raw_form(mode="async"), headers=headers)
    assert answer.status_code == 202, answer.data
    return str(answer.json["task_id"])


def test_the_context_of_the_caller_is_in_the_record(client: FlaskClient, app: Flask) -> None:
    store = services_of(app).store
    task_id = submit(client, SENT)
    assert store.get(task_id).trace == f"{PARENT} vendor=value"
    assert record_fields(store.get(task_id))["trace_id"] == PARENT[3:35]  # of log lines
    (lease,) = store.lease("worker", [task_id]).leases
    assert lease.trace == f"{PARENT} vendor=value"


def test_tasks_of_a_batch_have_it_too(client: FlaskClient, app: Flask) -> None:
    batch = post_batch(client, [1, 2], headers={**SENT, "Prefer": "respond-async"}).json
    assert {record.trace for record in records(app, batch)} == {f"{PARENT} vendor=value"}


def records(app: Flask, batch: Any) -> list[Any]:
    store = services_of(app).store
    return store.get_many(store.get_batch(batch["batch_id"]).task_ids)


def test_a_task_without_a_context_has_no_field_for_it(
    client: FlaskClient, app: Flask, redis_client: redis.Redis, key_prefix: str
) -> None:
    for headers in ({}, {"traceparent": "nonsense", "tracestate": "vendor=value"}):
        task_id = submit(client, headers)
        assert b"trace" not in redis_client.hgetall(f"{key_prefix}:task:{task_id}")
        assert services_of(app).store.get(task_id).trace == ""
