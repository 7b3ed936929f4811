"""Records with any content: a task whose record cannot be read is as one that is not there, and other tasks are served."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis
from api_rig import FakeWorker, post_async, raw_form
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import as_json, fuzz, json_values, objects

VALUES = json_values("digits", "succeeded", "queued", "task_id", "object_key", "header", "answer", "format", "status", "result")
#: contents of a field, as they might be after a fault of another program or of an older version
FIELDS = st.binary(max_size=20) | VALUES.map(as_json) | st.sampled_from([b"", b"queued", b"running", b"succeeded", b"9" * 30])
BATCH = "0f8fad5bd9cb469fa165708677289500"


def outcomes(whole: bytes) -> st.SearchStrategy[bytes]:
    """Outcomes like `whole` with other members, and other values of the vector."""
    head, _, values = whole.partition(b"\n")
    return st.tuples(objects(orjson.loads(head), VALUES), st.sampled_from([values, b"", values[:-1], values[:8]])).map(
        lambda parts: as_json(parts[0]) + b"\n" + parts[1]
    )


def changed_fields(names: list[bytes], whole: bytes) -> st.SearchStrategy[dict[bytes, bytes | None]]:
    known = st.dictionaries(st.sampled_from(names), st.none() | FIELDS, min_size=1, max_size=3)
    return known | outcomes(whole).map(lambda outcome: {b"outcome": outcome})


def apply(client: redis.Redis, key: str, whole: dict[bytes, bytes], changes: dict[bytes, bytes | None]) -> None:
    """Write the record `whole` with these fields, None: without them."""
    fields = {name: value for name, value in {**whole, **changes}.items() if value is not None}
    client.delete(key)
    if fields:
        client.hset(key, mapping=fields)


@pytest.fixture
def ended(client: FlaskClient, idle_worker: FakeWorker) -> tuple[str, str]:
    """Two tasks that have ended."""
    ids = post_async(client, raw_form()), post_async(client, raw_form())
    idle_worker.work_off()
    return ids


@fuzz(80)
@given(data=st.data())
def test_any_record(
    client: FlaskClient, ended: tuple[str, str], redis_client: redis.Redis, key_prefix: str, data: st.DataObject
) -> None:
    task_id, other = ended
    key = f"{key_prefix}:task:{task_id}"
    whole: Any = redis_client.hgetall(f"{key_prefix}:task:{other}")
    names = sorted({*whole, b"batch", b"webhook", b"webhook_state", b"webhook_log", b"owner", b"replay_of", b"delivery:jsonl"})
    changes = data.draw(changed_fields(names, whole[b"outcome"]))
    apply(redis_client, key, whole, changes)
    for method, path in (
        *(("GET", f"/tasks/{task_id}"), ("GET", f"/tasks/{task_id}?wait=0.01"), ("GET", f"/tasks/{task_id}/image")),
        *(("POST", f"/tasks/{task_id}/replay"), ("DELETE", f"/tasks/{task_id}")),
    ):
        response = client.open(path, method=method)
        assert response.status_code < 500, (path, changes, response.data)
        apply(redis_client, key, whole, changes)
    listed = client.get("/tasks").json["tasks"]
    assert other in {task["task_id"] for task in listed}


@fuzz(60)
@given(content=FIELDS | st.lists(VALUES, max_size=3).map(as_json))
def test_any_record_of_a_batch(client: FlaskClient, redis_client: redis.Redis, key_prefix: str, content: bytes) -> None:
    redis_client.set(f"{key_prefix}:batch:{BATCH}", content)
    for method in ("GET", "DELETE"):
        response = client.open(f"/batches/{BATCH}", method=method)
        assert response.status_code < 500, (content, response.data)
