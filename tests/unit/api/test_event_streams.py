"""Event streams in one process: what a client gets, on a real record store, and what is left when it has gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_rig import FakeWorker, post_async
from event_reading import Events
from flask.testing import FlaskClient


@pytest.fixture
def watch(client: FlaskClient) -> Iterator[Any]:
    """Opens streams, and closes them at the end."""
    opened: list[Events] = []

    def open_stream(path: str, **options: Any) -> Events:
        opened.append(Events(client, path, **options))
        return opened[-1]

    yield open_stream
    for events in opened:
        events.close()


class TestTask:
    def test_its_state_now_then_each_change_until_the_end(self, client: FlaskClient, watch: Any, idle_worker: FakeWorker) -> None:
        idle_worker.gate.clear()
        task_id = post_async(client)
        events = watch(f"/tasks/{task_id}/events")
        assert events.next().data["status"] == "queued"
        idle_worker.start()
        assert events.next().data["status"] == "running"
        idle_worker.gate.set()
        last = events.next()
        assert (last.name, last.data["status"], last.data["task_id"]) == ("task", "succeeded", task_id)
        assert "prediction" not in last.data["result"]
        assert events.has_ended()
