"""Event streams of running API processes: killed, stopping and shared ones, and clients that vanish or do not read."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import redis
from support.api_process import GET, ApiProcess, get
from support.client import wait_until
from support.event_stream import EventStream
from support.samples import a_batch, a_request, a_success

from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="as test_connections")]

MakeApi = Callable[..., ApiProcess]
PREFIX = "inference"


class Store:
    """The record store of the API processes, in place of other clients and of workers."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._store = RedisTaskStore(client, StorePolicy(PREFIX))

    def accept(self) -> str:
        request = a_request()
        self._store.accept(request, enqueue=None, max_queue_depth=0)
        return request.task_id

    def accept_many(self, count: int) -> str:
        """A batch of so many tasks."""
        batch = a_batch(*(a_request() for _ in range(count)))
        self._store.accept_batch(batch, enqueue=(), max_queue_depth=0)
        return batch.batch_id

    def start(self, task_id: str) -> None:
        self._store.lease("w", [task_id])
        assert self._store.start("w", [task_id]) == [1]

    def end(self, task_id: str) -> None:
        assert self._store.commit("w", [Commit(task_id, 1, a_success())]) == [True]

    def cancel_all(self, batch_id: str) -> None:
        self._store.cancel_many(self._store.get_batch(batch_id).task_ids)

    def listeners(self) -> int:
        ((_, count),) = self._redis.pubsub_numsub(f"{PREFIX}:changes")
        return int(count)


@pytest.fixture
def store(redis_client: redis.Redis) -> Iterator[Store]:
    store = Store(redis_client)
    yield store
    wait_until(lambda: store.listeners() == 0, timeout_s=10, what="no reader is left without streams")


def kill(api: ApiProcess) -> None:
    """SIGKILL to the main process and its workers."""
    processes = [psutil.Process(api.process.pid), *psutil.Process(api.process.pid).children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    api.process.wait(10)


def test_what_happens_while_the_api_is_killed_is_the_first_event_of_another(
    make_api: MakeApi, api: ApiProcess, store: Store
) -> None:
    task_id = store.accept()
    killed = make_api()
    with EventStream(killed, f"/tasks/{task_id}/events") as before:
        last_id, task = before.next()
        assert task["status"] == "queued"
        kill(killed)
        with contextlib.suppress(OSError):
            assert before.has_ended()
    store.start(task_id)
    with EventStream(api, f"/tasks/{task_id}/events", b"Last-Event-ID: %s\r\n" % last_id.encode()) as after:
        assert after.status() == "running"
        store.end(task_id)
        assert after.status() == "succeeded"
        assert after.has_ended()


def test_every_worker_process_sees_every_change(make_api: MakeApi, store: Store) -> None:
    api = make_api(workers=2)
    task_id = store.accept()
    with contextlib.ExitStack() as stack:
        streams = []

        def are_open_in_both() -> bool:
            stream = stack.enter_context(EventStream(api, f"/tasks/{task_id}/events"))
            assert stream.status() == "queued"
            streams.append(stream)
            return store.listeners() == 2

        wait_until(are_open_in_both, timeout_s=60, what="both processes, one of which may start later, have a stream")
        store.start(task_id)
        assert {stream.status() for stream in streams} == {"running"}
        store.end(task_id)
        assert {stream.status() for stream in streams} == {"succeeded"}
        assert all(stream.has_ended() for stream in streams)


def test_streams_do_not_delay_a_stop(make_api: MakeApi, store: Store) -> None:
    api = make_api(drain_timeout_s=600)
    paths = [f"/tasks/{store.accept()}/events", f"/batches/{store.accept_many(2)}/events", "/events"]
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(EventStream(api, path)) for path in paths]
        for stream in streams:
            stream.next()
        api.stop()
        assert all(stream.has_ended() for stream in streams)
    assert "Traceback" not in api.log


def test_a_client_that_vanishes_frees_its_place(make_api: MakeApi, store: Store) -> None:
    api = make_api(max_event_streams=1)
    path = f"/tasks/{store.accept()}/events"
    with EventStream(api, path) as stream:
        stream.next()
        with api.connect() as refused:
            answer = refused.ask(get(target=path.encode()))
            assert (answer.status, answer.document["code"]) == (503, "service_unavailable")
    wait_until(lambda: store.listeners() == 0, timeout_s=10, what="the place is free")  # long before the next comment
    with EventStream(api, path) as stream:
        assert stream.status() == "queued"


def test_a_client_that_does_not_read_is_disconnected(make_api: MakeApi, store: Store) -> None:
    api = make_api(body_timeout_s=1)
    store.accept_many(100)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", api.port))
        client.sendall(get(target=b"/events"))
        wait_until(lambda: store.listeners() == 1, timeout_s=10, what="the stream")

        def has_gone() -> bool:
            store.cancel_all(store.accept_many(100))
            time.sleep(0.3)
            return store.listeners() == 0

        wait_until(has_gone, timeout_s=30, what="the stream has ended")
    with api.connect() as other:
        assert other.ask(GET).status == 200
    assert "Traceback" not in api.log


class TestConnection:
    def test_it_is_used_again_after_a_stream(self, api: ApiProcess, store: Store) -> None:
        task_id = store.accept()
        with EventStream(api, f"/tasks/{task_id}/events") as stream:
            stream.next()
            store.start(task_id)
            assert stream.status() == "running"
            store.end(task_id)
            assert stream.status() == "succeeded"
            assert stream.has_ended()
            assert [stream.connection.ask(GET).status for _ in range(2)] == [200, 200]

    def test_a_client_that_sends_its_next_request_has_not_gone(self, api: ApiProcess, store: Store) -> None:
        task_id = store.accept()
        with EventStream(api, f"/tasks/{task_id}/events") as stream:
            stream.next()
            stream.connection.send(GET)
            time.sleep(0.2)
            store.start(task_id)
            assert stream.status() == "running"
            store.end(task_id)
            assert stream.status() == "succeeded"
            assert stream.has_ended()

    def test_http_1_0(self, api: ApiProcess, store: Store) -> None:
        task_id = store.accept()
        store.start(task_id)
        store.end(task_id)
        with EventStream(api, f"/tasks/{task_id}/events", version=b"HTTP/1.0") as stream:
            assert stream.status() == "succeeded"
            assert stream.has_ended()

    def test_head(self, api: ApiProcess, store: Store) -> None:
        with api.connect() as connection:
            answer = connection.ask(get(target=f"/tasks/{store.accept()}/events".encode(), method=b"HEAD"), "HEAD")
            assert (answer.status, answer.headers["x-accel-buffering"], answer.body) == (200, "no", b"")
            assert connection.ask(GET).status == 200
