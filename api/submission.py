"""From a request to an accepted task: admit, validate, store, enqueue."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from api.admission import Admission
from api.predict_form import PredictForm
from inference.accepting import accept
from inference.broker import USUAL_PRIORITY, Broker
from inference.effective import Effective, EffectiveConfiguration
from inference.errors import IdempotencyConflict, InvalidMetadata, Overloaded, ServiceUnavailable
from inference.imaging import ImageLimits, inspect
from inference.messages import ModelRef, PredictionRequest, QueueItem
from inference.replies import ReplyRouter, Waiter
from inference.settings import Settings
from inference.storage import ObjectStore, upload_key
from inference.task_store import StateChanged, TaskStore

#: How often a task is tried to be accepted while commands change the models.
_TRIES = 5


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
        configuration: EffectiveConfiguration,
        replies: ReplyRouter,
        admission: Admission,
        settings: Settings,
    ) -> None:
        self._store = store
        self._broker = broker
        self._objects = objects
        self._configuration = configuration
        self._replies = replies
        self._admission = admission
        self._settings = settings

    def submit(self, form: PredictForm) -> Submission:
        """Accept a task; the caller ends the waiter.

        Raises:
            InferenceError: refused; then nothing of it is left.
        """
        for _ in range(_TRIES):
            try:
                return self._submit(form, self._configuration.now())
            except StateChanged:  # a command came in between
                self._configuration.refresh()
        raise ServiceUnavailable("the models change faster than a task is accepted", retry_after_s=1)

    def _submit(self, form: PredictForm, effective: Effective) -> Submission:
        spec = effective.model(form.model)
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
        sinks = self._sinks(form, effective)
        self._check_priority(form)
        known = self._known_task(form)
        if known is not None:
            return self._replayed(known, deadline_s)
        self._admission.check(spec.queue, deadline_s=deadline_s, sinks=sinks)
        task_id = uuid.uuid4().hex
        item = QueueItem(task_id, upload_key(task_id, datetime.now(UTC)), header)
        request = PredictionRequest(
            task_id=task_id,
            request_id=form.request_id,
            model=effective.reference(spec),
            queue=spec.queue,
            item=item,
            deadline_s=deadline_s,
            sinks=sinks,
            revision=effective.revision,
            priority=form.priority,
            reply_to=self._replies.channel,
            store_ms=self._upload(item, form),
            idempotency_key=form.idempotency_key,
            fingerprint=form.fingerprint,
        )
        return self._accept_and_expect(request)

    def _upload(self, item: QueueItem, form: PredictForm) -> float:
        """Gives the milliseconds that it took."""
        began = time.perf_counter()
        content_type = form.content_type or "application/octet-stream"
        # A request id may be of any letters, and an object's metadata is of headers.
        metadata = {"request-id": quote(form.request_id)}
        self._objects.put(item.object_key, form.image, content_type=content_type, metadata=metadata)
        return round((time.perf_counter() - began) * 1000, 3)

    def _accept_and_expect(self, request: PredictionRequest) -> Submission:
        task_id, deadline_s = request.task_id, request.deadline_s
        waiter = self._replies.expect(task_id)  # before anything can answer
        try:
            accepted_id = self._accept(request)
        except BaseException:
            self._replies.forget(waiter)
            raise
        if accepted_id != task_id:  # the same key came twice at the same time
            self._replies.forget(waiter)
            return self._replayed(accepted_id, deadline_s)
        return Submission(task_id, request.request_id, request.model, waiter, deadline_s, request.store_ms, created=True)

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
        try:
            accepted = accept(
                self._store,
                self._broker,
                request,
                max_queue_depth=self._settings.limits.max_queue_depth,
                on_withdrawn=lambda: self._discard(request),
            )
        except (Overloaded, IdempotencyConflict, StateChanged) as error:
            self._discard(request)
            if isinstance(error, Overloaded):
                error.retry_after_s = self._admission.retry_after_s(request.queue)
            raise
        if not accepted.created:
            self._discard(request)
        return accepted.task_id

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

    def _sinks(self, form: PredictForm, effective: Effective) -> tuple[str, ...]:
        configured = self._settings.possible_sinks
        unknown = [sink for sink in form.sinks or () if sink not in configured]
        if unknown:
            raise InvalidMetadata(
                f"results cannot go to {', '.join(unknown)} here",
                field="metadata.sinks",
                expected=f"some of {', '.join(configured) or 'none'}",
            )
        return effective.sinks if form.sinks is None else form.sinks

    def _check_priority(self, form: PredictForm) -> None:
        if form.priority != USUAL_PRIORITY and not self._broker.has_priorities:
            raise InvalidMetadata(
                "this service's broker has no priorities: RabbitMQ's quorum queues go in order",
                field="metadata.priority",
                expected=f"{USUAL_PRIORITY}, or a service with broker.queue_type: classic",
            )

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
