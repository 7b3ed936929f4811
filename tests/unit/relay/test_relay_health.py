"""Health of a relay: each loop turns, a sink or store that is down stops none, and one that hangs is named."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from support.fake_clock import FakeClock
from support.samples import a_request, a_success
from support.waiting import until

from inference.container import Services
from inference.errors import ConfigurationError, ServiceUnavailable
from inference.relay.delivery import Relay, RelayPolicy
from inference.relay.health import RelayHealth
from inference.relay.upload_maintenance import Housekeeping
from inference.runtime.health import OK
from inference.runtime.loop_watch import LoopWatch
from inference.settings import load_settings
from inference.settings.http_address import bound_socket
from inference.sinks.protocol import Refusal, SinkUnavailable, StoredResult
from inference.status.monitoring import start_monitoring
from inference.task_store import Commit
from inference.task_store.outbox import Outbox
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


class DownSink:
    """A sink that is down for ever."""

    name = "down"

    def write(self, _documents: Sequence[dict[str, Any]]) -> list[Refusal]:
        raise SinkUnavailable("down")

    def erase(self, _results: Sequence[StoredResult]) -> list[bool]:
        raise SinkUnavailable("down")

    def close(self) -> None:
        pass


def test_a_delivery_that_waits_for_its_sink_makes_progress(redis_client: redis.Redis, key_prefix: str) -> None:
    store, clock, stopping = RedisTaskStore(redis_client, StorePolicy(key_prefix)), FakeClock(), threading.Event()
    task_id = store.accept(a_request(sinks=("down",)), enqueue=None, max_queue_depth=0).task_id
    store.lease("w", [task_id])
    store.start("w", [task_id])
    store.commit("w", [Commit(task_id, 1, a_success())])
    relay = Relay(
        Outbox(redis_client, key_prefix, "down", "relay"),
        store,
        DownSink(),
        pipeline_id="p",
        policy=RelayPolicy(backoff_s=0.001, max_backoff_s=0.001),
    )
    turns: list[dict[str, float]] = []

    class Watch(LoopWatch):
        def turn(self) -> None:
            clock.advance(relay.turn_limit_s - 1)  # as if each try took that long
            turns.append(self.stuck())
            super().turn()

    relay.watch = Watch(clock)

    def run() -> None:
        with relay.watch.watched("relay-down", relay.turn_limit_s):
            relay.run(stopping)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: len(turns) >= 10, "ten tries")
    finally:
        stopping.set()
        thread.join()
    assert turns == [{}] * len(turns)


def test_a_port_that_is_taken_ends_the_start(tmp_path: Path, redis_url: str) -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        settings = load_settings(None, {"data_dir": tmp_path, "broker": {"url": redis_url}, "monitoring": {"relay_port": port}})
        with pytest.raises(ConfigurationError, match=rf"^monitoring\.relay_port: cannot listen on 127\.0\.0\.1:{port}: "):
            start_monitoring(Services(settings), RelayHealth({}, threading.Event()), "relay")


def test_a_job_that_hangs_is_named_and_one_that_fails_is_not() -> None:
    clock, stopping, hangs, goes_on = FakeClock(), threading.Event(), threading.Event(), threading.Event()

    def fail() -> float:
        raise ServiceUnavailable("down")

    def hang() -> float:
        hangs.set()
        goes_on.wait(60)
        return 1.0

    runner = Housekeeping({"fails": fail, "hangs": hang})
    runner.watch = LoopWatch(clock)
    health = RelayHealth({"housekeeping": runner}, stopping)
    assert (health.live(), health.ready()) == ({"threads": OK}, {"process": OK})

    def run() -> None:
        with runner.watch.watched("housekeeping", runner.turn_limit_s):
            runner.run(stopping)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert hangs.wait(60)
        clock.advance(runner.turn_limit_s)
        assert health.live() == {"threads": OK}
        clock.advance(1)
        assert health.live() == {"threads": f"housekeeping has made no progress for {runner.turn_limit_s + 1:.0f} s"}
        goes_on.set()
        until(lambda: health.live() == {"threads": OK}, "it goes on")
    finally:
        goes_on.set()
        stopping.set()
        thread.join()
    assert health.ready() == {"process": "stopping"}
