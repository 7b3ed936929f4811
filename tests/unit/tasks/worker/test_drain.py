"""A worker that stops: what runs is finished and committed, the rest is given back, nothing new is started."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pipeline_rig import FakePredictor, Inbox, MakeRig, Outage, Rig, assert_succeeded, wait_until

from inference.broker.rejected import RejectedMessages
from inference.domain import ModelRef, QueueMessage
from inference.errors import ConfigurationError
from inference.models.files import ModelFiles
from inference.models.predictor.protocol import Loaded
from inference.models.registry import ModelRegistry, reference
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import RolloutStore
from inference.rollout.worker_registry import WorkerPresence
from inference.settings import Settings
from inference.storage.local import LocalObjectStore
from inference.task_store.redis_store import RedisTaskStore
from tasks.worker.worker import InferenceWorker


class Stopping:
    """`call` on a thread of its own, as the signal handler's main thread would."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._result.append(call()), daemon=True)
        self._thread.start()

    def result(self) -> Any:
        wait_until(lambda: self._result, "the end of the stop")
        return self._result[0]


@pytest.fixture
def busy(make_rig: MakeRig) -> Rig:
    """Images 0 and up wait in every stage behind a running batch: 1 runs, 6 are decoded, 5 wait for a slot."""
    rig = make_rig(slots=7).start()
    rig.predictor.gate.clear()
    rig.inboxes = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    rig.inboxes += rig.send(*range(1, 12))
    rig.await_decoded(6)
    wait_until(lambda: len(rig.held) == 12, "everything leased")
    return rig


def stop_while_it_runs(rig: Rig) -> bool:
    stopping = Stopping(lambda: rig.pipeline.stop(10))
    wait_until(lambda: all(stage.stopping.is_set() for stage in rig.stages[:-1]), "the stop")
    rig.predictor.gate.set()
    finished: bool = stopping.result()
    return finished


def test_the_running_batch_is_finished_and_committed(busy: Rig) -> None:
    assert stop_while_it_runs(busy)
    assert_succeeded(busy.record(0), 0)
    assert busy.inboxes[0].ends == {busy.task_id(0): "committed"}


def test_it_is_committed_at_once_whatever_else_hangs(make_rig: MakeRig) -> None:
    rig = make_rig(max_batch_size=1, io_threads=1).start()
    rig.predictor.gate.clear()
    (inbox,) = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    hangs, goes_on = threading.Event(), threading.Event()
    rig.objects.before["get"] = lambda: hangs.set() or goes_on.wait(30)
    rig.send(1)
    assert hangs.wait(10)
    stopping = Stopping(lambda: rig.pipeline.stop(30))
    wait_until(lambda: all(stage.stopping.is_set() for stage in rig.stages[:-1]), "the stop")
    rig.predictor.gate.set()
    wait_until(lambda: inbox.dones, "the end of what ran")
    assert not stopping._result
    goes_on.set()
    assert stopping.result()
    assert_succeeded(rig.record(0), 0)


def test_what_was_prefetched_is_not_started(busy: Rig) -> None:
    assert stop_while_it_runs(busy)
    assert busy.predictor.batches == [[0]]
    assert set(busy.statuses(range(1, 12)).values()) == {"queued"}
    assert not any(inbox.dones or inbox.started for inbox in busy.inboxes[1:])
    assert sorted(busy.held.task_ids()) == sorted(busy.task_id(number) for number in range(1, 12))
    assert len(busy.free_slots()) == 7 - len(busy.ready_jobs)


def test_threads_end(busy: Rig) -> None:
    assert stop_while_it_runs(busy)
    assert all(stage.join(0) for stage in busy.stages)


def test_a_batch_that_hangs_is_said_to_have_taken_too_long(busy: Rig) -> None:
    assert not busy.pipeline.stop(0.1)
    assert busy.record(0).status == "running"
    busy.predictor.gate.set()


def busy_with_a_batch_of_three(rig: Rig, *, held_call: int) -> None:
    """Image 0, then 1 to 3 as one batch that raises; the predictor's call of that number waits."""
    rig.predictor.gate.clear()
    rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    rig.predictor.raises_on = {1, 2, 3}
    rig.send(1, 2, 3)
    rig.await_decoded(3)
    rig.predictor.hold(held_call)
    wait_until(lambda: len(rig.predictor.batches) == held_call, "the held call")


def test_a_failed_batch_is_run_one_by_one_to_its_end(make_rig: MakeRig) -> None:
    rig = make_rig().start()
    busy_with_a_batch_of_three(rig, held_call=3)
    rig.predictor.raises_on = {2}
    assert stop_while_it_runs(rig)
    assert [len(batch) for batch in rig.predictor.batches] == [1, 3, 1, 1, 1]
    assert rig.statuses(range(4)) == {0: "succeeded", 1: "succeeded", 2: "failed", 3: "succeeded"}


def test_a_process_that_dies_while_the_worker_stops_is_not_started_again(busy: Rig) -> None:
    busy.predictor.crashes_on[0] = 1
    assert stop_while_it_runs(busy)
    assert busy.predictor.starts == 0
    assert busy.task_id(0) in busy.held.task_ids()
    assert (busy.record(0).status, busy.record(0).deaths) == ("running", 1)


def test_images_that_were_never_run_die_no_death_while_the_worker_stops(make_rig: MakeRig) -> None:
    """A batch that raised runs one by one; its first image kills the process, which is not started again at a stop."""
    rig = make_rig().start()
    busy_with_a_batch_of_three(rig, held_call=3)
    first, *others = rig.predictor.batches[1]
    rig.predictor.crashes_on[first] = 1
    assert stop_while_it_runs(rig)
    assert rig.record(first).deaths == 1
    assert [rig.record(number).deaths for number in others] == [0, 0]
    assert len(rig.held) == 3


def test_a_killer_that_is_no_dead_letter_yet_is_left_to_the_sweeper(make_rig: MakeRig, store: RedisTaskStore) -> None:
    """Were it given back, it would run on another worker, and kill that one's process too."""
    rig = make_rig().start()
    rig.predictor.crashes_on[1] = 1000
    rig.objects.take_down("copy")
    rig.send(1)
    wait_until(lambda: rig.objects.refused["copy"], "a refused copy")
    assert rig.pipeline.stop(10)
    store.release(rig.holder, rig.held.task_ids())  # as the worker does after it
    assert (rig.record(1).status, rig.record(1).deaths) == ("running", 3)


def test_a_batch_taken_while_the_worker_stops_is_not_started(make_rig: MakeRig) -> None:
    rig = make_rig()
    runner = rig.pipeline._batch_runner
    take = runner.ready.take_batch
    taken = threading.Event()
    go_on = threading.Event()

    def slow_take(*args: Any, **options: Any) -> Any:
        jobs = take(*args, **options)
        if jobs:
            taken.set()
            assert go_on.wait(10)
        return jobs

    runner.ready.take_batch = slow_take
    rig.start()
    rig.send(1)
    assert taken.wait(10)
    stopping = Stopping(lambda: rig.pipeline.stop(10))
    wait_until(runner.stopping.is_set, "the stop")
    go_on.set()
    assert stopping.result()
    assert rig.predictor.batches == []
    assert rig.held.task_ids() == [rig.task_id(1)]


def test_outcomes_that_cannot_be_committed_are_left_to_another_worker(make_rig: MakeRig) -> None:
    rig = make_rig().start()
    rig.store.take_down("commit")
    (inbox,) = rig.send(1)
    wait_until(lambda: rig.store.refused["commit"], "a refused commit")
    assert rig.pipeline.stop(10)
    assert inbox.dones == []
    rig.store.bring_up()
    assert rig.record(1).status == "running"


class Worker:
    """An `InferenceWorker` whose predictor is a fake, and what a test asks of it."""

    def __init__(self, settings: Settings, specs: list[ModelSpec], store: Any, objects: Any, presence: WorkerPresence) -> None:
        self.store = store
        self.worker = InferenceWorker(
            settings,
            specs,
            store=store,
            objects=objects,
            presence=presence,
            desired=RolloutStore(presence._redis, presence._index),
            files=ModelFiles(settings),
            models=ModelRegistry({spec.name: spec for spec in specs}, default=specs[0].name),
            rejected=RejectedMessages(presence._redis, presence._index),
        )
        self.pipelines = self.worker._pipelines
        self.arenas = {name: pipeline._batch_runner._arena for name, pipeline in self.pipelines.items()}
        self.predictor = FakePredictor(self.arenas)
        self.predictor.loaded = {spec.name: Loaded(spec.name, 10, 0.5) for spec in specs}
        self.predictor.references = {spec.name: reference(spec) for spec in specs}
        self.worker.predictor = self.predictor  # type: ignore[assignment]
        for stage in self.worker._background_stages[1:]:
            stage._predictor = self.predictor
        for pipeline in self.pipelines.values():
            pipeline._batch_runner._predictor = self.predictor
        self.stages = [stage for pipeline in self.pipelines.values() for stage in pipeline._stages]
        self.stages += self.worker._background_stages
        self.faults: list[str] = []
        for stage in self.stages:
            stage._on_fault = lambda name=stage.name: self.faults.append(name)

    def submit(self, *numbers: int, model: str = "digits") -> list[Inbox]:
        """Accept and deliver the images of these numbers, one message each."""
        task_ids = [self.rig.accept(number) for number in numbers]
        inboxes = []
        for task_id in task_ids:
            message = QueueMessage(ModelRef(model, "1", "sha256:0"), (self.rig.store.get(task_id).item,))
            inboxes.append(Inbox(message))
            self.worker.submit(inboxes[-1].delivery)
        return inboxes

    def start_busy(self, *waiting: int) -> list[Inbox]:
        """Image 0 runs until the gate is opened, the others wait behind it."""
        self.predictor.gate.clear()
        assert self.worker.start(lambda: False)
        inboxes = self.submit(0)
        wait_until(lambda: self.predictor.batches, "a running batch")
        inboxes += self.submit(*waiting)
        wait_until(lambda: len(self.worker._held) == 1 + len(waiting), "everything leased")
        return inboxes

    def stop(self) -> None:
        """Stop like SIGTERM, while a batch runs."""
        stopping = Stopping(lambda: [self.worker.stop()])
        wait_until(self.pipelines["digits"]._batch_runner.stopping.is_set, "the stop")
        self.predictor.gate.set()
        stopping.result()


@pytest.fixture
def presence(redis_client: redis.Redis, key_prefix: str) -> WorkerPresence:
    return WorkerPresence(redis_client, key_prefix)


@pytest.fixture
def worker(
    make_rig: MakeRig,
    stores: tuple[RedisTaskStore, LocalObjectStore],
    presence: WorkerPresence,
    tmp_path: Path,
    digits: ModelSpec,
) -> Iterator[Worker]:
    """Two models, digits and others; batches of up to 2."""
    store, objects = stores
    settings = Settings(
        data_dir=tmp_path,
        models=(digits.folder,),
        worker={"max_batch_size": 2, "io_threads": 2, "drain_timeout_s": 10},
        task_store={"lease_s": 0.3},
    )
    specs = [digits, digits.model_copy(update={"name": "others"})]
    worker = Worker(settings, specs, Outage(store), objects, presence)
    worker.rig = make_rig()  # accepts tasks; its own pipeline does not run
    yield worker
    worker.predictor.gate.set()
    for stage in worker.stages:
        stage.stop()
    for stage in worker.stages:
        assert stage.join(10)
    for arena in worker.arenas.values():
        arena._file.close()
    assert worker.faults == []


def test_a_worker_that_is_stopped_while_it_starts_leaves_no_predictor(worker: Worker) -> None:
    assert not worker.worker.start(lambda: True)
    assert not worker.predictor._running


def test_a_worker_whose_models_cannot_be_loaded_leaves_no_predictor(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bool:
        raise ConfigurationError("no such model")

    monkeypatch.setattr(worker.worker._reloader, "start_predictor", fail)
    with pytest.raises(ConfigurationError, match="no such model"):
        worker.worker.start(lambda: False)
    assert not worker.predictor._running


def test_a_worker_serves_its_models_and_says_so(worker: Worker, presence: WorkerPresence, digits: ModelSpec) -> None:
    assert worker.worker.start(lambda: False)
    assert worker.worker.serves("digits")
    assert not worker.worker.serves("unheard-of")
    wait_until(presence.workers, "the announcement")
    (info,) = presence.workers()
    assert info.worker == worker.worker.holder
    assert [(model.name, model.digest) for model in info.models] == [("digits", digits.digest), ("others", digits.digest)]
    inboxes = worker.submit(1, 2, 3)
    worker.rig.await_done(inboxes)
    for number in (1, 2, 3):
        assert_succeeded(worker.rig.record(number), number)
    worker.worker.stop()
    assert presence.workers() == []


def test_a_worker_that_is_told_to_stop_before_it_is_warm_does_not_start(worker: Worker) -> None:
    assert not worker.worker.start(lambda: True)
    assert not any(thread.is_alive() for stage in worker.stages for thread in stage._threads)


def test_each_model_has_batches_of_its_own(worker: Worker) -> None:
    worker.predictor.gate.clear()
    assert worker.worker.start(lambda: False)
    inboxes = [*worker.submit(*range(4)), *worker.submit(*range(10, 14), model="others")]
    worker.predictor.gate.set()
    worker.rig.await_done(inboxes)
    assert all(len({number < 10 for number in batch}) == 1 for batch in worker.predictor.batches)
    for number in (*range(4), *range(10, 14)):
        assert_succeeded(worker.rig.record(number), number)


def test_leases_are_renewed_for_all_that_is_held(
    worker: Worker, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    inboxes = worker.start_busy(*range(1, 8))
    leases = {task_id: redis_client.zscore(f"{key_prefix}:leases", task_id) for task_id in worker.worker._held.task_ids()}
    assert leases.keys() == {worker.rig.task_id(number) for number in range(8)}
    for task_id, until_ms in leases.items():
        wait_until(lambda t=task_id, u=until_ms: redis_client.zscore(f"{key_prefix}:leases", t) > u, "a renewed lease")
    assert store.reap("sweeper", max_attempts=3, limit=100).requeue == ()
    worker.predictor.gate.set()
    worker.rig.await_done(inboxes)


def test_a_worker_that_stops_gives_back_what_it_did_not_start(worker: Worker, redis_client: redis.Redis, key_prefix: str) -> None:
    first, *others = worker.start_busy(*range(1, 8))
    worker.stop()
    worker.rig.await_done([first])
    assert_succeeded(worker.rig.record(0), 0)
    assert set(worker.rig.statuses(range(1, 8)).values()) == {"queued"}
    assert redis_client.zcard(f"{key_prefix}:leases") == 0
    assert not any(inbox.dones for inbox in others)
    assert worker.rig.store.get_queue_stats("predict.digits").depth == 7


def test_what_is_given_back_runs_elsewhere_at_once(worker: Worker, make_rig: MakeRig) -> None:
    worker.start_busy(1, 2, 3)
    worker.stop()
    other = make_rig(holder="other-worker").start()
    other.await_done([other.deliver(worker.rig.task_id(number)) for number in (1, 2, 3)])
    for number in (1, 2, 3):
        assert_succeeded(worker.rig.record(number), number)
        assert worker.rig.record(number).attempts == 1


def test_no_model_starts_a_batch_once_the_worker_stops(worker: Worker) -> None:
    """But for the one batch that waits for its turn at the predictor already."""
    worker.start_busy()
    worker.submit(*range(10, 24), model="others")
    wait_until(worker.arenas["others"]._free.empty, "a full arena behind a started batch")
    worker.stop()
    assert len(worker.predictor.batches) <= 2


def test_a_store_that_is_down_does_not_keep_a_worker_from_stopping(worker: Worker) -> None:
    worker.start_busy(1)
    worker.store.take_down("commit", "release", "renew")
    worker.stop()
    assert worker.rig.statuses((0, 1)) == {0: "running", 1: "queued"}
