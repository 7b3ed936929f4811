"""From a request to an accepted task: admit, validate, store, enqueue."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from api.predict_form import PredictForm
from inference.broker import Broker
from inference.errors import IdempotencyConflict, InvalidMetadata, Overloaded, ServiceUnavailable
from inference.imaging import ImageHeader, ImageLimits, inspect
from inference.messages import ModelRef, PredictionRequest, QueueItem, QueueMessage
from inference.models.registry import ModelRegistry, reference
from inference.models.spec import ModelSpec
from inference.replies import ReplyRouter, Waiter
from inference.settings import Settings
from inference.storage import ObjectStore, upload_key
from inference.task_store import QueueStats, TaskStore

#: Seconds that a look at a queue counts.
_STATS_AGE_S = 0.5


@dataclass(frozen=True)
class Submission:
    """An accepted task and the waiter that its reply comes to."""

    task_id: str
    request_id: str
    model: ModelRef
    waiter: Waiter
    #: seconds from acceptance to the task's deadline
    deadline_s: float
    #: milliseconds that the upload took
    store_ms: float
    #: False when an idempotency key brought an earlier task
    created: bool


class Submissions:
    """Accepts predict requests."""

    def __init__(
        self,
        *,
        store: TaskStore,
        broker: Broker,
        objects: ObjectStore,
        models: ModelRegistry,
        replies: ReplyRouter,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._broker = broker
        self._objects = objects
        self._models = models
        self._replies = replies
        self._settings = settings
        self._clock = clock
        self._stats: dict[str, tuple[float, QueueStats]] = {}

    def submit(self, form: PredictForm) -> Submission:
        """Accept a task; the caller ends the waiter.

        Raises:
            InferenceError: refused; then nothing of it is left.
        """
        spec = self._models.get(form.model)
        limits = ImageLimits(self._settings.limits.max_pixels)
        header = inspect(
            form.image,
            shape=form.shape,
            dtype=form.dtype,
            content_type=form.content_type,
            spec=spec.input,
            limits=limits,
        )
        deadline_s = self._deadline_s(form)
        known = self._known_task(form)
        if known is not None:
            return self._replayed(known, deadline_s)
        self._admit(spec, deadline_s)
        return self._accept_new(form, spec, header, deadline_s)

    def _accept_new(self, form: PredictForm, spec: ModelSpec, header: ImageHeader, deadline_s: float) -> Submission:
        task_id = uuid.uuid4().hex
        item = QueueItem(task_id, upload_key(task_id, datetime.now(UTC)), header)
        began = time.perf_counter()
        self._objects.put(item.object_key, form.image)
        store_ms = round((time.perf_counter() - began) * 1000, 3)
        request = PredictionRequest(
            task_id=task_id,
            request_id=form.request_id,
            model=reference(spec),
            queue=spec.queue,
            item=item,
            deadline_s=deadline_s,
            sinks=self._settings.sinks,
            reply_to=self._replies.channel,
            store_ms=store_ms,
            idempotency_key=form.idempotency_key,
            fingerprint=form.fingerprint,
        )
        waiter = self._replies.expect(task_id)  # before anything can answer
        try:
            accepted_id = self._accept(request)
        except BaseException:
            self._replies.forget(waiter)
            raise
        if accepted_id != task_id:  # the same key came twice at the same time
            self._replies.forget(waiter)
            return self._replayed(accepted_id, deadline_s)
        return Submission(task_id, form.request_id, request.model, waiter, deadline_s, store_ms, created=True)

    def _replayed(self, task_id: str, deadline_s: float) -> Submission:
        """An earlier task that an idempotency key stands for; its reply may have gone to another process, or be long gone."""
        waiter = self._replies.expect(task_id)
        try:
            record = self._store.get(task_id)
        except BaseException:
            self._replies.forget(waiter)
            raise
        if record.outcome is not None:
            waiter.resolve(record.outcome, record.finished_at_ms)
        return Submission(task_id, record.request_id, record.model, waiter, deadline_s, record.store_ms, created=False)

    def _accept(self, request: PredictionRequest) -> str:
        message = QueueMessage(request.model, (request.item,))
        enqueue = self._broker.prepare(request.queue, message)
        try:
            accepted = self._store.accept(request, enqueue=enqueue, max_queue_depth=self._settings.limits.max_queue_depth)
        except (Overloaded, IdempotencyConflict) as error:
            self._discard(request)
            if isinstance(error, Overloaded):
                error.retry_after_s = self._retry_after_s(self._queue_stats(request.queue))
            raise
        # A store that broke off in between may have accepted it: then the upload must stay. Retention removes it otherwise.
        if not accepted.created:
            self._discard(request)
        elif enqueue is None:
            self._publish(request, message)
        return accepted.task_id

    def _publish(self, request: PredictionRequest, message: QueueMessage) -> None:
        try:
            self._broker.publish(request.queue, message)
        except ServiceUnavailable:
            with contextlib.suppress(ServiceUnavailable):
                self._store.withdraw(request.task_id)
                self._discard(request)
            raise

    def _discard(self, request: PredictionRequest) -> None:
        with contextlib.suppress(ServiceUnavailable):
            self._objects.delete(request.item.object_key)

    def _known_task(self, form: PredictForm) -> str | None:
        if not form.idempotency_key:
            return None
        known = self._store.find_idempotent(form.idempotency_key)
        if known is None:
            return None
        task_id, fingerprint = known
        if fingerprint != form.fingerprint:
            raise IdempotencyConflict(
                "the Idempotency-Key was used with other content before",
                field="Idempotency-Key",
                expected="the same image and metadata, or another key",
                task_id=task_id,
            )
        return task_id

    def _deadline_s(self, form: PredictForm) -> float:
        deadlines = self._settings.deadlines
        default_s = deadlines.sync_s if form.preference.wait_s is None else deadlines.async_s
        wanted_s = form.deadline_s or default_s
        if wanted_s > deadlines.max_s:
            raise InvalidMetadata(
                f"deadline_s is {wanted_s:g}, more than this service allows",
                field="metadata.deadline_s",
                expected=f"at most {deadlines.max_s:g}",
            )
        return wanted_s

    def _admit(self, spec: ModelSpec, deadline_s: float) -> None:
        """Refuse what would wait past its deadline at the rate at which tasks end now."""
        stats = self._queue_stats(spec.queue)
        if stats.depth <= self._settings.worker.max_batch_size:
            return  # one batch is no overload, whatever the rate looks like after a quiet time
        if stats.drain_rate_per_s > 0 and stats.depth / stats.drain_rate_per_s > deadline_s:
            raise Overloaded(
                f"{stats.depth} tasks wait and {stats.drain_rate_per_s:.1f} a second end: "
                f"this one would miss its deadline of {deadline_s:g} s",
                retry_after_s=self._retry_after_s(stats),
            )

    def _queue_stats(self, queue: str) -> QueueStats:
        looked_at, stats = self._stats.get(queue, (-_STATS_AGE_S, None))
        if stats is None or self._clock() - looked_at >= _STATS_AGE_S:
            stats = self._store.queue_stats(queue)
            self._stats[queue] = (self._clock(), stats)
        return stats

    @staticmethod
    def _retry_after_s(stats: QueueStats) -> float:
        """When half of what waits now will have ended."""
        return min(60.0, stats.depth / 2 / stats.drain_rate_per_s) if stats.drain_rate_per_s > 0 else 5.0
