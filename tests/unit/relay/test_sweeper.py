"""The sweeper, when nobody else keeps a promise: no message stays lost, no dead holder keeps a task, no deadline is missed."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from support.collector import Collector, running_collector
from support.failing_store import FailingStore
from support.fake_clock import FakeClock
from support.fakes import FakeBroker, FakeObjectStore
from support.metrics import Growth
from support.samples import QUEUE, a_message, a_request, a_success
from support.time_travel import let_time_pass
from support.waiting import until

from inference.domain import QueueMessage, TaskStatus
from inference.relay import sweeper
from inference.relay.sweeper import Sweeper, SweepPolicy
from inference.runtime.log_context import current_log_fields
from inference.settings import load_settings
from inference.storage.protocol import dead_letter_key
from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy
from inference.tracing.tracer import Tracer

LEASE_S = 10.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GRACE_S = 5.0


class Rig:
    """A sweeper over the real store; time passes for both together."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._prefix = key_prefix
        self.store = FailingStore(RedisTaskStore(client, StorePolicy(key_prefix, lease_s=LEASE_S)))
        self.clock = FakeClock()
        self.broker = FakeBroker()
        self.objects = FakeObjectStore()
        self.sweeper = self.new_sweeper()

    def new_sweeper(self, holder: str = "sweeper", tracer: Tracer | None = None) -> Sweeper:
        return Sweeper(
            self.store,
            self.broker,
            self.objects,
            holder=holder,
            queues=[QUEUE],
            policy=SweepPolicy(interval_s=0.001, max_attempts=2, requeue_lost_after_s=GRACE_S),
            tracer=tracer,
            clock=self.clock,
        )

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        let_time_pass(self._redis, self._prefix, seconds)

    def accept(self, *, deadline_s: float = 3600, is_lost: bool = False, trace: str = "") -> str:
        """A task; `is_lost`: without its message."""
        request = a_request(deadline_s=deadline_s, trace=trace)
        self.objects.put(request.item.object_key, b"image of " + request.task_id.encode())
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        if not is_lost:
            self.broker.publish(request.queue, a_message(request))
        return request.task_id

    def start(self, task_id: str, holder: str = "worker") -> None:
        self.store.lease(holder, [task_id])
        assert self.store.start(holder, [task_id])[0]

    def sweep(self, *, after_s: float = 0.0) -> list[str]:
        """One pass, a while later; gives the tasks whose messages it published, and takes these off the queue."""
        if after_s:
            self.advance(after_s)
        queue = self.broker.queues[QUEUE]
        before = len(queue)
        self.sweeper.sweep_once()
        published = [item.task_id for message in queue[before:] for item in message.items]
        del queue[before:]
        return published

    def status(self, task_id: str) -> TaskStatus:
        return self.store.get(task_id).status


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


class TestLostMessages:
    def test_a_task_is_lost_when_the_queue_is_empty(self, rig: Rig) -> None:
        lost = rig.accept(is_lost=True)
        assert rig.sweep() == []
        assert rig.sweep(after_s=GRACE_S) == [lost]
        assert rig.broker.redelivered == {lost}

    def test_a_task_is_lost_when_later_ones_started_a_grace_ago(self, rig: Rig) -> None:
        lost, overtook = rig.accept(is_lost=True), rig.accept(is_lost=True)
        rig.accept()  # the queue is not empty
        rig.start(overtook)
        assert rig.sweep() == []
        assert rig.sweep(after_s=GRACE_S - 1) == []
        rig.store.renew("worker", [overtook])
        assert rig.sweep(after_s=1) == [lost]

    def test_later_ones_that_only_just_started_prove_nothing(self, rig: Rig) -> None:
        """Two workers take messages in turn: the other may be about to lease the earlier one."""
        lost = rig.accept(is_lost=True)
        overtook = rig.accept(is_lost=True)
        rig.accept()
        assert rig.sweep(after_s=10 * GRACE_S) == []
        rig.start(overtook)
        assert rig.sweep() == []
        assert rig.sweep(after_s=GRACE_S) == [lost]

    def test_a_task_that_waits_its_turn_is_not_lost_however_long(self, rig: Rig) -> None:
        for _ in range(3):
            rig.accept()
        for _ in range(5):
            assert rig.sweep(after_s=10 * GRACE_S) == []

    def test_a_task_that_a_worker_holds_is_not_lost(self, rig: Rig) -> None:
        held = rig.accept(is_lost=True)
        rig.store.lease("worker", [held])
        assert rig.sweep(after_s=GRACE_S + 1) == []

    def test_a_lost_task_is_queued_once_a_grace(self, rig: Rig) -> None:
        lost = rig.accept(is_lost=True)
        assert rig.sweep(after_s=GRACE_S) == [lost]
        assert rig.sweep() == []
        assert rig.sweep(after_s=GRACE_S) == [lost], "its message got lost again"

    def test_two_sweepers_queue_it_once(self, rig: Rig) -> None:
        rig.accept(is_lost=True)
        rig.advance(GRACE_S)
        for holder in ("s1", "s2"):
            rig.new_sweeper(holder).sweep_once()
        assert rig.broker.get_depth(QUEUE) == 1

    def test_the_message_is_the_tasks_own(self, rig: Rig) -> None:
        lost = rig.accept(is_lost=True)
        rig.advance(GRACE_S)
        rig.sweeper.sweep_once()
        record = rig.store.get(lost)
        (message,) = rig.broker.queues[QUEUE]
        assert (message.model, message.items) == (record.model, (record.item,))

    def test_a_broker_that_is_down_delays_it_only(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        lost = rig.accept(is_lost=True)
        rig.broker.available = False
        rig.advance(GRACE_S)
        rig.sweeper.sweep_once()
        assert "does not answer" in caplog.text
        rig.broker.available = True
        assert rig.sweep() == [lost]

    def test_one_far_behind_those_that_workers_hold_is_found_pass_after_pass(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweeper, "_LOST_LIMIT", 50)
        ids = [rig.accept(is_lost=True) for _ in range(120)]
        rig.store.lease("worker", ids[:-1])
        rig.advance(GRACE_S)
        assert [rig.sweep() for _ in range(3)] == [[], [], ids[-1:]]


class TestDeadOwners:
    def test_a_lease_that_ran_out_is_queued_again_once(self, rig: Rig) -> None:
        held = rig.accept(is_lost=True)
        rig.store.lease("worker", [held])
        assert rig.sweep() == []
        assert rig.sweep(after_s=LEASE_S + 1) == [held]
        assert rig.broker.redelivered == set()  # its record counts the worker
        assert rig.sweep() == []

    def test_a_task_whose_message_cannot_be_published_is_found_later(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        held = rig.accept(is_lost=True)
        rig.store.lease("worker", [held])
        rig.broker.available = False
        rig.advance(LEASE_S + 1)
        rig.sweeper.sweep_once()
        assert "does not answer" in caplog.text
        rig.broker.available = True
        assert rig.sweep() == []
        assert rig.sweep(after_s=GRACE_S) == [held]

    def test_a_task_out_of_attempts_is_a_dead_letter_with_its_input(self, rig: Rig) -> None:
        task_id = rig.accept(is_lost=True)
        for expected in ([task_id], []):
            rig.start(task_id)
            assert rig.sweep(after_s=LEASE_S + 1) == expected
        record = rig.store.get(task_id)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.FAILED, 2, 2)
        assert record.outcome is not None
        assert record.outcome.error is not None
        assert record.outcome.error["code"] == "predictor_died"
        assert rig.store.list_dead_letters(10) == [task_id]
        assert rig.objects.get(dead_letter_key(task_id)) == b"image of " + task_id.encode()

    def test_a_task_whose_input_is_gone_is_a_dead_letter_all_the_same(self, rig: Rig) -> None:
        task_id = rig.accept(is_lost=True)
        rig.objects.objects.clear()
        for _ in range(2):
            rig.start(task_id)
            rig.sweep(after_s=LEASE_S + 1)
        assert rig.store.list_dead_letters(10) == [task_id]

    def test_an_object_store_that_is_down_delays_the_dead_letter_only(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        task_id = rig.accept(is_lost=True)
        rig.start(task_id)
        rig.sweep(after_s=LEASE_S + 1)
        rig.start(task_id)
        rig.objects.available = False
        rig.advance(LEASE_S + 1)
        rig.sweeper.sweep_once()
        assert "does not answer" in caplog.text
        assert rig.status(task_id) is TaskStatus.RUNNING
        rig.objects.available = True
        rig.sweep(after_s=LEASE_S + 1)
        record = rig.store.get(task_id)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.FAILED, 2, 2)

    def test_a_task_that_its_holder_ends_meanwhile_is_no_dead_letter(self, rig: Rig) -> None:
        task_id = rig.accept(is_lost=True)
        rig.start(task_id)
        rig.advance(LEASE_S + 1)
        assert rig.store.commit("worker", [Commit(task_id, 1, a_success())]) == [True]
        assert rig.sweep() == []
        assert rig.status(task_id) is TaskStatus.SUCCEEDED


class TestDeadlines:
    def test_every_task_ends_at_its_deadline_wherever_it_is(self, rig: Rig) -> None:
        waiting, running = rig.accept(deadline_s=30), rig.accept(deadline_s=30)
        later = rig.accept(deadline_s=60)
        rig.start(running)
        rig.advance(31)
        rig.sweeper.sweep_once()
        assert [rig.status(task_id) for task_id in (waiting, running)] == [TaskStatus.EXPIRED] * 2
        assert rig.status(later) is TaskStatus.QUEUED

    @pytest.fixture
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """Tasks that one step of a pass handles."""
        monkeypatch.setattr(sweeper, "_LIMIT", 20)
        return sweeper._LIMIT

    def test_more_than_one_step_takes_end_in_one_pass(self, rig: Rig, limit: int) -> None:
        ids = [rig.accept(deadline_s=1) for _ in range(2 * limit + 1)]
        rig.advance(2)
        rig.sweeper.sweep_once()
        assert {rig.status(task_id) for task_id in ids} == {TaskStatus.EXPIRED}

    @pytest.fixture
    def said(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        """Expired tasks that the log has named since the last call; `…` stands for the first ids of the others."""
        caplog.set_level("INFO", "inference.lifecycle.task_log")

        def read() -> list[str]:
            messages = [record.getMessage() for record in caplog.records if record.name == "inference.lifecycle.task_log"]
            caplog.clear()
            return [message.split()[1] if message.startswith("task ") else f"… {message}" for message in messages]

        return read

    @pytest.mark.parametrize("count", [1, 19, 20])
    def test_each_has_a_line(self, rig: Rig, said: Callable[[], list[str]], limit: int, count: int) -> None:
        ids = [rig.accept(deadline_s=1) for _ in range(count)]
        rig.advance(2)
        rig.sweeper.sweep_once()
        assert sorted(said()) == sorted(ids)
        rig.advance(2)
        rig.sweeper.sweep_once()
        assert said() == [], "a pass without any says nothing"

    def test_of_many_the_first_have_a_line_and_the_others_one_in_the_next_second(
        self, rig: Rig, said: Callable[[], list[str]], limit: int
    ) -> None:
        ids = [rig.accept(deadline_s=1) for _ in range(limit + 15)]
        ids.sort(key=lambda task_id: (rig.store.get(task_id).deadline_at_ms, task_id))
        rig.advance(2)
        rig.sweeper.sweep_once()
        assert said() == ids[:20]
        rig.advance(2)
        rig.sweeper.sweep_once()
        assert said() == [f"… 15 more tasks expired: {', '.join(ids[20:30])} and 5 more"]

    def test_its_line_says_how_late_it_was_and_whether_it_ran_and_has_its_fields(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "inference.lifecycle.task_log")
        waiting, running = rig.accept(deadline_s=1), rig.accept(deadline_s=1)
        rig.start(running)
        rig.advance(4)
        with _fields_of(caplog.handler) as fields:
            rig.sweeper.sweep_once()
        said = dict(zip((each["task_id"] for each in fields), caplog.messages, strict=True))
        records = {task_id: rig.store.get(task_id) for task_id in (waiting, running)}
        late_s = {task_id: (record.finished_at_ms - record.deadline_at_ms) / 1000 for task_id, record in records.items()}
        where = {waiting: "it waited, and no attempt had begun", running: "attempt 1 had begun"}
        assert said == {
            task_id: f"task {task_id} expired: its deadline passed {late:.1f} s ago; {where[task_id]}"
            for task_id, late in late_s.items()
        }
        assert min(late_s.values()) >= 3
        assert {each["model"] for each in fields} == {rig.store.get(waiting).model.name}

    def test_those_that_passed_before_the_store_failed_are_told(
        self, rig: Rig, said: Callable[[], list[str]], limit: int
    ) -> None:
        for _ in range(limit + 5):
            rig.accept(deadline_s=1)
        rig.advance(2)
        expire_due, steps = rig.store.expire_due, iter([True, False, True])

        def failing(limit: int) -> list[str]:
            rig.store.available = next(steps)
            return expire_due(limit)

        rig.store.expire_due = failing  # type: ignore[method-assign]
        rig.sweeper.sweep_once()
        assert said() == [], "their records cannot be read"
        rig.advance(2)
        rig.sweeper.sweep_once()
        others, *own = said()
        assert others.startswith(f"… {limit} more tasks expired: ")
        assert len(own) == 5

    @pytest.mark.parametrize("what", ["broker", "objects"])
    def test_they_hold_while_another_server_is_down(self, rig: Rig, caplog: pytest.LogCaptureFixture, what: str) -> None:
        dying = rig.accept(is_lost=True)
        rig.start(dying)
        rig.sweep(after_s=LEASE_S + 1)
        rig.start(dying)
        due = rig.accept(deadline_s=5)
        getattr(rig, what).available = False
        rig.advance(LEASE_S + 1)
        rig.sweeper.sweep_once()
        assert "does not answer" in caplog.text
        assert rig.status(due) is TaskStatus.EXPIRED


class TestFailures:
    @pytest.mark.parametrize("step", ["expire_due", "reap", "get_started_watermarks"])
    def test_a_step_that_fails_in_an_unknown_way_keeps_no_other(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
    ) -> None:
        due, lost, held = rig.accept(deadline_s=1, is_lost=True), rig.accept(is_lost=True), rig.accept(is_lost=True)
        rig.start(held)

        def fail(*_: object, **__: object) -> None:
            raise KeyError(step)

        with monkeypatch.context() as broken:
            broken.setattr(rig.store, step, fail)
            published = rig.sweep(after_s=LEASE_S + 1) + rig.sweep(after_s=GRACE_S + 1)
        assert "sweep failed" in caplog.text
        done = {
            "expire_due": rig.status(due) is TaskStatus.EXPIRED,
            "reap": held in published,
            "get_started_watermarks": lost in published,
        }
        assert done == dict.fromkeys(done, True) | {step: False}
        rig.sweep(after_s=GRACE_S + 1)
        assert rig.status(due) is TaskStatus.EXPIRED

    def test_one_task_that_cannot_be_moved_or_sent_keeps_no_other(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        odd, good = rig.accept(is_lost=True), rig.accept(is_lost=True)
        publish = rig.broker.publish

        def sometimes(queue: str, message: QueueMessage, priority: int = 0, **options: bool) -> None:
            if message.items[0].task_id == odd:
                raise TypeError("odd")
            publish(queue, message, priority, **options)

        monkeypatch.setattr(rig.broker, "publish", sometimes)
        rig.sweep()
        assert rig.sweep(after_s=GRACE_S) == [good]
        assert f"the message of {odd} failed" in caplog.text


def test_a_sweeper_that_runs_survives_a_store_that_is_down(rig: Rig) -> None:
    store, stopping = rig.store, threading.Event()
    due = rig.accept(deadline_s=1)
    rig.advance(2)
    store.available = False
    thread = threading.Thread(target=rig.new_sweeper().run, args=(stopping,))
    thread.start()
    try:
        until(lambda: store.refusals > 10, "two passes without a store")
        store.available = True
        until(lambda: rig.status(due) is TaskStatus.EXPIRED, "the deadline")
    finally:
        stopping.set()
        thread.join(10)
    assert not thread.is_alive()


def test_what_the_sweeper_does_is_counted(rig: Rig) -> None:
    growth = Growth()
    held = rig.accept(is_lost=True)
    rig.store.lease("worker", [held])
    rig.sweep()
    assert rig.sweep(after_s=LEASE_S + 1) == [held]
    lost = rig.accept(is_lost=True)
    rig.sweep()
    assert lost in rig.sweep(after_s=GRACE_S)
    rig.accept(deadline_s=1)
    rig.sweep(after_s=2)
    assert growth.of("tasks_redelivered_total", reason="worker_lost") == 1
    assert growth.of("tasks_redelivered_total", reason="message_lost") >= 1
    assert growth.of("tasks_expired_total") == 1


@contextlib.contextmanager
def _fields_of(handler: logging.Handler) -> Iterator[list[dict[str, str]]]:
    """The fields of each line that comes to `handler` in the block."""
    found: list[dict[str, str]] = []

    def note(_: logging.LogRecord) -> bool:
        found.append(current_log_fields())
        return True

    handler.addFilter(note)
    yield found
    handler.removeFilter(note)


class TestTraces:
    @pytest.fixture
    def collector(self) -> Iterator[Collector]:
        with running_collector() as running:
            yield running

    @pytest.fixture
    def traced(self, rig: Rig, collector: Collector) -> Iterator[Tracer]:
        """The tracer of the rig's sweeper; its spans have come once it is closed."""
        tracer = Tracer(load_settings(None, {"tracing": {"endpoint": collector.endpoint}, "models": ["models/digits"]}), "relay")
        rig.sweeper = rig.new_sweeper(tracer=tracer)
        yield tracer
        tracer.close()

    def test_an_expired_task_has_a_span_if_its_trace_is_kept(self, rig: Rig, traced: Tracer, collector: Collector) -> None:
        waiting, running = (rig.accept(deadline_s=30, trace=PARENT) for _ in range(2))
        rig.accept(deadline_s=30)
        rig.accept(deadline_s=30, trace=f"{PARENT[:-1]}0")
        rig.start(running)
        rig.sweep(after_s=31)
        traced.close()
        spans = {span.attributes["inference.task.id"]: span for span in collector.spans}
        assert spans.keys() == {waiting, running}
        for task_id, attempt in ((waiting, 0), (running, 1)):
            span, record = spans[task_id], rig.store.get(task_id)
            assert (span.name, span.traceparent[:35]) == (f"expire {QUEUE}", PARENT[:35])
            assert (span.parent_id, span.is_failed, span.service) == (PARENT[36:52], True, "inference-relay")
            assert span.attributes["error.type"] == "deadline_exceeded"
            assert (span.attributes["inference.attempt"], span.attributes["inference.task.status"]) == (attempt, "expired")
            assert span.start_ns == (record.started_at_ms or record.created_at_ms) * 1_000_000
            assert span.end_ns - span.start_ns > 29e9

    def test_a_dead_letter_has_a_span(self, rig: Rig, traced: Tracer, collector: Collector) -> None:
        task_id = rig.accept(is_lost=True, trace=PARENT)
        for _ in range(2):
            rig.start(task_id)
            rig.sweep(after_s=LEASE_S + 1)
        assert rig.store.list_dead_letters(10) == [task_id]
        traced.close()
        (span,) = collector.spans
        assert (span.name, span.parent_id, span.is_failed) == (f"dead letter {QUEUE}", PARENT[36:52], True)
        assert span.attributes["error.type"] == "predictor_died"
        assert span.attributes["inference.attempt"] == 2
