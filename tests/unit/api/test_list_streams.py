"""Event streams of lists: the newest tasks, then those that were accepted or have changed, as often as the work allows."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from api_rig import FakeWorker, assert_problem, post_async, raw_form
from event_reading import Event, Watch, event_of
from flask.testing import FlaskClient
from support.fake_clock import FakeClock
from support.samples import a_request, a_success

from api.events.list_subject import MAX_TASKS, ListEvents, ListSubject
from api.events.list_updates import ListUpdates
from api.events.streams import EventStream
from inference.domain import TaskStatus
from inference.task_store import Commit, TaskFilter
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


def shown(event: Event) -> list[tuple[str, str]]:
    assert event.name == "tasks"
    return [(task["task_id"], task["status"]) for task in event.data["tasks"]]


class TestStream:
    def test_the_newest_page_then_what_changes(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        first, second = post_async(client), post_async(client)
        events = watch("/events")
        assert shown(events.next()) == [(second, "queued"), (first, "queued")]
        third = post_async(client)
        assert shown(events.next()) == [(third, "queued")]
        client.delete(f"/tasks/{first}")
        assert shown(events.next()) == [(first, "canceled")]
        idle_worker.work_off()
        ended: dict[str, dict[str, Any]] = {}
        while sum(task["status"] == "succeeded" for task in ended.values()) < 2:
            ended |= {task["task_id"]: task for task in events.next().data["tasks"]}
        assert ended.keys() == {second, third}
        assert not any("prediction" in task["result"] for task in ended.values())

    def test_filters(self, client: FlaskClient, watch: Watch) -> None:
        wanted = post_async(client, raw_form(metadata={"request_id": "photo-17"}))
        others = [watch(f"/events?{query}") for query in ("model=digits", "request_id=photo-17&status=queued,running")]
        nothing = [watch(f"/events?{query}") for query in ("model=other", "request_id=photo-18", "status=failed,expired")]
        assert [shown(events.next()) for events in (*others, *nothing)] == [[(wanted, "queued")]] * 2 + [[]] * 3
        second = post_async(client, raw_form(metadata={"request_id": "photo-18"}))
        assert shown(others[0].next()) == [(second, "queued")]
        assert shown(nothing[1].next()) == [(second, "queued")]
        client.delete(f"/tasks/{wanted}")  # it no longer matches, which those that have shown it say
        assert shown(others[0].next()) == [(wanted, "canceled")]
        assert shown(others[1].next()) == [(wanted, "canceled")]

    def test_the_page_is_shown_again_after_a_broken_connection(
        self, client: FlaskClient, watch: Watch, redis_client: redis.Redis
    ) -> None:
        events = watch("/events")
        assert shown(events.next()) == []
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        task_id = post_async(client)
        assert shown(events.next()) == [(task_id, "queued")]

    @pytest.mark.parametrize("query", ["status=done", "limit=3", "model=", "request_id=a&request_id=b"])
    def test_odd_queries(self, client: FlaskClient, query: str) -> None:
        assert_problem(client.get(f"/events?{query}"), 400, "invalid_request", field=query.partition("=")[0])


class Rig:
    """Lists without a reader: the test says what has changed."""

    def __init__(self, store: RedisTaskStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.updates = ListUpdates(store, self.clock)
        self.lists: list[ListSubject] = []

    def open(self, streams: int = 1, **wanted: Any) -> tuple[ListSubject, ListEvents]:
        subject = ListSubject(TaskFilter(**wanted), self.store)
        subject.streams |= {EventStream(lambda _: None, owner="", ends_on_drain=True) for _ in range(streams)}
        self.lists.append(subject)
        events = ListEvents(subject, "")
        list(events.new_events())
        return subject, events

    def accept(self, count: int, **changes: Any) -> list[str]:
        requests = [a_request(**changes) for _ in range(count)]
        for request in requests:
            self.store.accept(request, enqueue=None, max_queue_depth=0)
        self.updates.add(request.task_id for request in requests)
        return [request.task_id for request in requests]

    def publish(self) -> None:
        self.updates.publish_if_due(self.lists)


def data(events: ListEvents) -> list[dict[str, Any]]:
    return [event_of(text).data for text in events.new_events()]


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(RedisTaskStore(redis_client, StorePolicy(key_prefix)))


class TestUpdates:
    def test_an_event_has_a_hundred_tasks_and_counts_the_others(self, rig: Rig) -> None:
        _, events = rig.open()
        ids = rig.accept(130)
        rig.publish()
        (update,) = data(events)
        assert {task["task_id"] for task in update["tasks"]} == set(ids[-MAX_TASKS:])
        assert update["omitted"] == 30

    def test_a_slow_stream_gets_all_that_is_kept_in_one_event(self, rig: Rig) -> None:
        _, events = rig.open()
        ids = []
        for _ in range(3):
            ids += rig.accept(2)
            rig.publish()
            rig.clock.advance(10)
        rig.updates.add(ids[:1])  # changes once more
        rig.publish()
        (update,) = data(events)
        assert {task["task_id"] for task in update["tasks"]} == set(ids)
        assert "omitted" not in update
        assert data(events) == []

    def test_a_slower_one_is_told_how_many_it_has_missed(self, rig: Rig) -> None:
        _, events = rig.open()
        ids = []
        for _ in range(7):
            ids += rig.accept(3)
            rig.publish()
            rig.clock.advance(10)
        (update,) = data(events)
        assert {task["task_id"] for task in update["tasks"]} == set(ids[-12:])
        assert update["omitted"] == 9

    def test_streams_of_a_list_share_the_text(self, rig: Rig) -> None:
        subject, events = rig.open()
        other = ListEvents(subject, "")
        list(other.new_events())
        rig.accept(1)
        rig.publish()
        (one,), (another,) = events.new_events(), other.new_events()
        assert one is another

    def test_at_most_four_a_second(self, rig: Rig) -> None:
        _, events = rig.open()
        rig.accept(1)
        rig.publish()
        rig.accept(1)
        rig.publish()
        assert len(data(events)[0]["tasks"]) == 1
        rig.clock.advance(0.26)
        rig.publish()
        assert len(data(events)[0]["tasks"]) == 1

    def test_many_streams_get_fewer(self, rig: Rig) -> None:
        _, events = rig.open(streams=1000)
        rig.accept(1)
        rig.publish()
        data(events)
        rig.accept(1)
        rig.clock.advance(3)
        rig.publish()
        assert data(events) == []
        rig.clock.advance(0.5)
        rig.publish()
        assert len(data(events)[0]["tasks"]) == 1

    def test_what_a_filter_does_not_match_wakes_nobody(self, rig: Rig) -> None:
        subject, events = rig.open(model="other")
        (stream,) = subject.streams
        rig.accept(1)
        rig.publish()
        assert data(events) == []
        assert not stream.wait(0)

    def test_a_filter_examines_more_than_an_event_shows(self, rig: Rig) -> None:
        _, events = rig.open(request_id="mine")
        (mine,) = rig.accept(1, request_id="mine")
        rig.accept(200)
        rig.publish()
        ((task,),) = [update["tasks"] for update in data(events)]
        assert task["task_id"] == mine

    def test_a_task_that_left_a_status_is_shown_once_more(self, rig: Rig) -> None:
        _, events = rig.open(statuses=(TaskStatus.QUEUED,))
        (task_id,) = rig.accept(1)
        rig.publish()
        assert data(events)[0]["tasks"][0]["status"] == "queued"
        rig.store.lease("w", [task_id])
        rig.store.start("w", [task_id])
        rig.clock.advance(10)
        rig.updates.add([task_id])
        rig.publish()
        assert data(events)[0]["tasks"][0]["status"] == "running"
        rig.store.commit("w", [Commit(task_id, 1, a_success())])
        rig.clock.advance(10)
        rig.updates.add([task_id])
        rig.publish()
        assert data(events) == []

    def test_the_memory_of_changes_is_bounded(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.events.list_updates._MAX_CHANGED", 10)
        _, events = rig.open()
        ids = rig.accept(25)
        rig.publish()
        (update,) = data(events)
        assert {task["task_id"] for task in update["tasks"]} == set(ids[-10:])
        assert update["omitted"] == 15
