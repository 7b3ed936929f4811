"""A pipeline on a real record store and a real object store, with a predictor that does what a test tells it."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.waiting import until

from inference.domain import (
    ImageFormat,
    ImageHeader,
    ModelRef,
    QueueItem,
    QueueMessage,
    TaskRecord,
    TaskStatus,
    TaskSubmission,
)
from inference.errors import PredictionFailed, ServiceUnavailable
from inference.imaging import ImageLimits
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import BatchPredictions, Predictor, PredictorCrashed, PredictorNotRunning
from inference.models.predictor.protocol import Loaded
from inference.models.spec import ModelSpec
from inference.task_store import TaskStore
from tasks.pipeline.batch_runner import BatchPolicy
from tasks.pipeline.jobs import Delivery, HeldJobs, ItemEnd, Job, Retry, UnregisteredTask
from tasks.pipeline.pipeline import Pipeline, PipelinePolicy
from tasks.pipeline.stage import Stage

OWNER = "this-worker"
CLASSES = 10
PATIENCE_S = 10.0
LIMITS = ImageLimits(max_pixels=1_000_000)
RAW_HEADER = ImageHeader(ImageFormat.RAW, (8, 8, 1), "<f4")
NO_OUTPUT = np.zeros((0, CLASSES), np.float32)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Look until `condition` holds; the test fails when that takes too long."""
    until(condition, what, timeout_s=PATIENCE_S)


def image_of(number: int) -> bytes:
    """A raw image that says which one it is: `FakePredictor` reads the number back from the arena."""
    return np.full((8, 8, 1), number, "<f4").tobytes()


def vector_of(number: int) -> NDArray[np.float32]:
    """Return `FakePredictor`'s answer for that image."""
    vector = np.full(CLASSES, 0.01, np.float32)
    vector[number % CLASSES] = 0.91
    return vector


def queue_item(number: int = 0, task_id: str | None = None) -> QueueItem:
    """An item whose task is in no store."""
    return QueueItem(task_id or f"task-{number}", f"uploads/{number}", RAW_HEADER)


def message_of(*items: QueueItem) -> QueueMessage:
    return QueueMessage(ModelRef("digits", "1", "sha256:0"), items)


class FakePredictor:
    """A predictor as `PredictorProcess` behaves, without a process: after a crash nothing runs until `start`."""

    def __init__(self, arenas: Mapping[str, SlotArena]) -> None:
        self._arenas = arenas
        self._lock = threading.Lock()
        self._running = True
        self.loaded: dict[str, Loaded] = {}
        #: the versions that are served
        self.references = {name: ModelRef(name, "1", "sha256:0") for name in arenas}
        #: the numbers of the images of each batch, in the order of the calls
        self.batches: list[list[int]] = []
        self.starts = 0
        #: calls that found the process down
        self.refused = 0
        #: calls from this one on (the first is 1) wait until the gate is set
        self.gate = threading.Event()
        self.gate.set()
        self.gated_from = 1
        #: numbers of images that make the model raise, give NaN, or kill the process; how often for the last
        self.raises_on: set[int] = set()
        self.nan_for: set[int] = set()
        self.crashes_on: Counter[int] = Counter()
        #: what is given instead of one row for each image
        self.answer: Callable[[int], NDArray[np.float32]] | None = None

    @property
    def seen(self) -> list[int]:
        """The numbers of all images so far."""
        return [number for batch in self.batches for number in batch]

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        with self._lock:
            if not self._running:
                self.refused += 1
                raise PredictorNotRunning("the predictor process is not running")
            numbers = [int(self._arenas[model].images[slot].flat[0]) for slot in slots]
            self.batches.append(numbers)
            served = self.references[model]
            if len(self.batches) >= self.gated_from:
                assert self.gate.wait(PATIENCE_S), "nobody opened the gate"
            killers = [number for number in numbers if self.crashes_on[number] > 0]
            if killers:
                self.crashes_on.subtract(killers)
                self._running = False
                raise PredictorCrashed("the predictor process died: signal 9")
            if self.raises_on.intersection(numbers):
                raise PredictionFailed("the model raised ValueError: no")
            return BatchPredictions(self._values(numbers), predict_ms=1.5, model=served)

    def hold(self, call: int) -> None:
        """Let the call that waits at the gate go on; the calls from number `call` on wait."""
        waiting, self.gate, self.gated_from = self.gate, threading.Event(), call
        waiting.set()

    def start(self, should_stop: Callable[[], bool]) -> bool:
        with self._lock:
            self.starts += not self._running
            self._running = True
        return not should_stop()

    def stop(self) -> None:
        self._running = False

    def _values(self, numbers: list[int]) -> NDArray[np.float32]:
        if self.answer is not None:
            return self.answer(len(numbers))
        values = np.stack([vector_of(number) for number in numbers])
        values[[number in self.nan_for for number in numbers], 3] = np.nan
        return values


class Outage:
    """Stands before a store: while one of its methods is down, that method raises ServiceUnavailable.

    `before` runs a function ahead of a method, so that a test can step in between two calls. What does two things in one call
    (`commit_and_start`) is both.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._down: set[str] = set()
        self.before: dict[str, Callable[[], object]] = {}
        #: the methods that were called
        self.calls: list[str] = []
        #: refused calls by method
        self.refused: Counter[str] = Counter()

    def take_down(self, *methods: str) -> None:
        self._down.update(methods)

    def bring_up(self) -> None:
        self._down.clear()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            for part in name.split("_and_"):
                self.before.get(part, lambda: None)()
                if part in self._down:
                    self.refused[part] += 1
                    raise ServiceUnavailable("taken down by the test")
            return method(*args, **options)

        return call


class Inbox:
    """A queue message as the test sees it: how often it was said to have started and to be done."""

    def __init__(self, message: QueueMessage, unregistered: Mapping[str, UnregisteredTask] | None = None) -> None:
        self.started = 0
        self.retries: list[Retry] = []
        self.dones: list[dict[str, ItemEnd]] = []
        self.revoked = False
        self.delivery = Delivery(
            message,
            on_started=self._on_started,
            on_retried=self.retries.append,
            on_done=self.dones.append,
            is_revoked=lambda _: self.revoked,
            unregistered=unregistered or {},
        )

    def _on_started(self) -> None:
        self.started += 1

    @property
    def ends(self) -> dict[str, str]:
        """The ending of each item by task id, once all of the message is done."""
        assert len(self.dones) == 1, f"done {len(self.dones)} times"
        return {task_id: end.ending.value for task_id, end in self.dones[0].items()}


class Rig:
    """One pipeline and what a test asks of it."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        store: TaskStore,
        objects: Any,
        arena: SlotArena,
        predictor: Predictor,
        max_batch_size: int = 4,
        io_threads: int = 2,
        max_batch_wait_ms: float = 0.0,
        max_attempts: int = 3,
        holder: str = OWNER,
    ) -> None:
        self.spec = spec
        self.store: Any = Outage(store)
        self.objects: Any = Outage(objects)
        self.arena = arena
        self.predictor: Any = predictor
        self.holder = holder
        self.held = HeldJobs()
        #: stages whose thread failed; in production that ends the process
        self.faults: list[str] = []
        self._ids: dict[int, str] = {}
        policy = PipelinePolicy(BatchPolicy(max_batch_size, max_batch_wait_ms, max_attempts), LIMITS, io_threads)
        self.pipeline = Pipeline(
            spec=spec,
            arena=arena,
            predictor=predictor,
            store=self.store,
            objects=self.objects,
            holder=holder,
            held=self.held,
            policy=policy,
        )
        for stage in self.stages:
            stage._on_fault = lambda name=stage.name: self.faults.append(name)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.pipeline._stages

    def start(self) -> Rig:
        self.pipeline.start()
        return self

    def accept(
        self,
        number: int,
        *,
        deadline_s: float = 60.0,
        data: bytes | None = None,
        upload: bool = True,
        version: str | None = None,
        header: ImageHeader | None = RAW_HEADER,
    ) -> str:
        """A task with the image of this number, in the stores; gives its id."""
        task_id = uuid.uuid4().hex
        item = QueueItem(task_id, f"uploads/{task_id}", header)
        if upload:
            self.objects.put(item.object_key, image_of(number) if data is None else data)
        request = TaskSubmission(
            task_id=task_id,
            request_id=f"request-{number}",
            model=ModelRef(self.spec.name, version or self.spec.version, "sha256:0"),
            queue=self.spec.queue,
            item=item,
            deadline_s=deadline_s,
            sinks=(),
        )
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        self._ids[number] = task_id
        return task_id

    def deliver(self, *task_ids: str) -> Inbox:
        """One message with these tasks, as the broker brings it."""
        records = [self.store.get(task_id) for task_id in task_ids]
        inbox = Inbox(QueueMessage(records[0].model, tuple(record.item for record in records)))
        self.pipeline.submit(inbox.delivery)
        return inbox

    def send(self, *numbers: int, **options: Any) -> list[Inbox]:
        """Accept and deliver the images of these numbers, one message each."""
        task_ids = [self.accept(number, **options) for number in numbers]
        return [self.deliver(task_id) for task_id in task_ids]

    def record(self, number: int) -> TaskRecord:
        return self.store.get(self._ids[number])

    def task_id(self, number: int) -> str:
        return self._ids[number]

    def statuses(self, numbers: Iterable[int]) -> dict[int, TaskStatus]:
        return {number: self.record(number).status for number in numbers}

    def await_done(self, inboxes: Iterable[Inbox]) -> None:
        for inbox in inboxes:
            wait_until(lambda inbox=inbox: inbox.dones, f"the end of {[i.task_id for i in inbox.delivery.message.items]}")

    def await_decoded(self, count: int) -> None:
        """Until so many images lie in the arena and wait for the predictor."""
        wait_until(lambda: len(self.ready_jobs) == count, f"{count} decoded images (there are {len(self.ready_jobs)})")

    @property
    def ready_jobs(self) -> list[Job]:
        ready = self.pipeline._batch_runner.ready
        return [*ready._jobs, *ready._isolated]

    def free_slots(self) -> list[int]:
        """The arena's free slots, each as often as it is said to be free."""
        slots = []
        while (slot := self.arena.acquire(0)) is not None:
            slots.append(slot)
        for slot in slots:
            self.arena.release(slot)
        return sorted(slots)

    def every_slot_is_free(self) -> bool:
        return self.free_slots() == list(range(self.arena.slots))


MakeRig = Callable[..., Rig]


def assert_succeeded(record: TaskRecord, number: int) -> None:
    """The record has this image's own result."""
    assert record.status == "succeeded", record
    assert record.outcome is not None
    assert record.outcome.result is not None
    np.testing.assert_array_equal(record.outcome.result.prediction, vector_of(number))
    assert record.outcome.result.class_index == number % CLASSES


def assert_failed(record: TaskRecord, code: str) -> None:
    assert record.status == "failed", record
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error["code"] == code
