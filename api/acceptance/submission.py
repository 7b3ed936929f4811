"""Steps from a request to an accepted task: validate, admit, store, enqueue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from api.acceptance.dependencies import AcceptanceParts
from api.acceptance.task_counts import count_accepted, count_refused
from api.acceptance.unstored_images import UnstoredImages
from api.acceptance.uploads import GRACE_S, MAX_STORE_S, Upload
from api.acceptance.validation import RequestValidator, ValidatedRequest
from api.forms.predict import PredictForm
from api.security.rate_limit import note_use
from api.telemetry.tracing import in_send_span, task_context
from inference.access import Caller
from inference.domain import ModelRef, Outcome, QueueItem, TaskRecord, TaskSubmission
from inference.errors import InferenceError, Overloaded
from inference.lifecycle.enqueue import accept, may_be_accepted, withdraw
from inference.lifecycle.replies import Waiter
from inference.runtime.log_context import bind_log_fields
from inference.task_store import Room

logger = logging.getLogger(__name__)

#: Item of an image, its upload, which may not have ended yet, and its size in bytes.
_StoredImage = tuple[QueueItem, Upload, int]


@dataclass
class Submission:
    """An accepted task and the waiter that receives its reply."""

    task_id: str
    request_id: str
    model: ModelRef
    waiter: Waiter
    #: seconds from acceptance to the task's deadline
    deadline_s: float
    #: None if an idempotency key led to an earlier task
    upload: Upload | None
    #: whether the request had an idempotency key
    has_key: bool
    #: returns its record as it was when the task was accepted or found
    record: Callable[[], TaskRecord]
    #: bytes for which its image counts in the owner's quota
    image_bytes: int = 0


class Submissions:
    """Accepts predict requests."""

    def __init__(self, parts: AcceptanceParts) -> None:
        self.parts = parts
        self._unstored = UnstoredImages(parts.store)
        self._validator = RequestValidator(parts.broker, parts.settings, parts.webhooks)

    def submit(self, form: PredictForm, caller: Caller) -> Submission:
        """Accept a task; the waiter is to be closed.

        Args:
            caller: the task belongs to its owner.

        Raises:
            InferenceError: the request was refused; nothing of it remains stored.
        """
        try:
            return in_send_span(self.parts.tracer, lambda: self._submit(form, caller), _span_of)
        except InferenceError as error:
            count_refused(error)
            raise

    def _submit(self, form: PredictForm, caller: Caller) -> Submission:
        checked = self._validator.check(form, form.preference, self.parts.configuration.now(), caller)
        known = self._known_task(form, caller.owner)
        if known is not None:
            return self._replayed(known, checked.deadline_s)
        self.parts.owner_limits.check(caller)
        queue = checked.spec.queue
        self.parts.webhooks.check_room([checked.webhook])
        self.parts.pacing.wait(queue, caller.owner, image_bytes=len(form.image))
        room = self.parts.admission.check(
            queue,
            model=checked.model,
            deadline_s=checked.deadline_s,
            sinks=checked.sinks,
            priority=form.priority,
            owner=caller.owner,
        )
        named = self._take_named(form, checked, caller)
        with self.parts.admission.admitted({queue: 1}, caller.owner):
            return self._store_and_accept(form, checked, caller, room, named or self._begin(form, checked))

    def _store_and_accept(
        self, form: PredictForm, checked: ValidatedRequest, caller: Caller, room: Room | None, image: _StoredImage
    ) -> Submission:
        item, upload, image_bytes = image
        request = TaskSubmission(
            task_id=item.task_id,
            request_id=form.request_id_of(item.task_id),
            model=checked.model,
            queue=checked.spec.queue,
            item=item,
            deadline_s=checked.deadline_s,
            sinks=checked.sinks,
            priority=form.priority,
            reply_to=self.parts.replies.channel,
            image=upload.inline,
            store_ms=self._store_first(upload, checked.deadline_s),
            idempotency_key=form.idempotency_key,
            fingerprint=form.fingerprint,
            replay_of=form.replay_of,
            webhook=checked.webhook,
            owner=caller.owner,
            image_bytes=image_bytes,
            trace=task_context(),
        )
        return self._accept_and_expect(request, upload, room, caller)

    def _begin(self, form: PredictForm, checked: ValidatedRequest) -> _StoredImage:
        """Inspect the image, and begin to store it. Raises InferenceError."""
        header = self._validator.inspect(form, checked.spec)
        item = QueueItem(*self.parts.ids.new(), header, form.answer)
        return item, self.parts.uploads.begin(item, form), len(form.image)

    def _take_named(self, form: PredictForm, checked: ValidatedRequest, caller: Caller) -> _StoredImage | None:
        """Fetch and inspect the image that the request names; None if the request contains its image. Raises InferenceError."""
        if form.url is None:
            return None
        task_id, key = self.parts.ids.new()
        inspect = partial(self._validator.inspect, spec=checked.spec)
        image = self.parts.named_images.take_within(checked.deadline_s, form, key, inspect, caller)
        return QueueItem(task_id, image.key, image.header, form.answer), image.upload, image.size

    def _store_first(self, upload: Upload, deadline_s: float) -> float:
        """Wait for an image that is not stored in the background; returns milliseconds, 0 for any other image.

        Raises:
            ServiceUnavailable: the object store fails, or takes too long; nothing of the image remains stored.
        """
        if upload.in_background:
            return 0.0
        try:
            return upload.wait(min(deadline_s, MAX_STORE_S))
        except BaseException:
            upload.discard()
            raise

    def confirm(self, submission: Submission, outcome: Outcome | None) -> float:
        """Wait for an image that is stored in the background; returns the milliseconds that storing it took.

        No request waits longer than `GRACE_S` for an object store that hangs: the task record has a copy of the image. If the
        image cannot be stored, a task that has begun continues, and so does a task with an idempotency key, because a repeated
        request must find it: the image is stored later.

        Raises:
            ServiceUnavailable: the image cannot be stored; nothing of the task remains stored, unless it `may_be_accepted`.
        """
        upload = submission.upload
        if upload is None:
            return 0.0
        try:
            return upload.wait(min(submission.deadline_s, GRACE_S) if upload.in_background else 0)
        except Exception as error:
            may_withdraw = upload.has_failed and outcome is None and not submission.has_key
            if may_withdraw and withdraw(self.parts.store, submission.task_id, image_bytes=submission.image_bytes):
                upload.discard()
                raise
            logger.warning("the image of task %s is not stored yet; the task continues: %r", submission.task_id, error)
            self._unstored.keep({submission.task_id: upload})
            return 0.0

    def _accept_and_expect(self, request: TaskSubmission, upload: Upload, room: Room | None, caller: Caller) -> Submission:
        task_id, deadline_s = request.task_id, request.deadline_s
        waiter = self.parts.replies.expect(task_id)  # before any reply can arrive
        try:
            accepted_id = self._accept(request, upload, room, caller)
        except BaseException:
            self.parts.replies.forget(waiter)
            raise
        if accepted_id != task_id:  # two requests came concurrently with the same key
            self.parts.replies.forget(waiter)
            return self._replayed(accepted_id, deadline_s)
        bind_log_fields(task_id=task_id, model=request.model.name)
        return Submission(
            task_id,
            request.request_id,
            request.model,
            waiter,
            deadline_s,
            upload,
            has_key=bool(request.idempotency_key),
            record=partial(TaskRecord.of_request, request),
            image_bytes=request.image_bytes,
        )

    def _replayed(self, task_id: str, deadline_s: float) -> Submission:
        """The earlier task of an idempotency key; its reply may have gone to another process, or came long ago."""
        waiter = self.parts.replies.expect(task_id)
        try:
            record = self.parts.store.get(task_id)
        except BaseException:
            self.parts.replies.forget(waiter)
            raise
        waiter.take_ends([record])
        bind_log_fields(task_id=task_id, model=record.model.name)
        return Submission(
            task_id, record.request_id, record.model, waiter, deadline_s, upload=None, has_key=True, record=lambda: record
        )

    def _accept(self, request: TaskSubmission, upload: Upload, room: Room | None, caller: Caller) -> str:
        try:
            self.parts.ids.check_age(request.task_id)
            accepted = accept(
                self.parts.store,
                self.parts.broker,
                request,
                max_queue_depth=self.parts.settings.limits.max_queue_depth,
                room=room,
                limits=caller.limits,
            )
        except InferenceError as error:
            self.parts.owner_limits.note(caller, error)
            if not may_be_accepted(error):
                upload.discard()
            if isinstance(error, Overloaded):
                error.retry_after_s = self.parts.admission.retry_after_s(request.queue)
            raise
        note_use(accepted.use)
        self.parts.uploads.note_inline_bytes(accepted.inline_bytes)
        if accepted.created:
            self.parts.admission.note_accepted(request.queue)
            count_accepted(request.model.name)
        else:
            upload.discard()
        return accepted.task_id

    def _known_task(self, form: PredictForm, owner: str) -> str | None:
        known = self.parts.store.find_idempotent(form.idempotency_key, owner=owner) if form.idempotency_key else None
        if known is not None and known.fingerprint != form.fingerprint:
            raise known.conflict()
        return known.task_id if known is not None else None


def _span_of(submission: Submission) -> tuple[str, dict[str, str]]:
    """Return the queue of a task, and the attributes of the span in which it was accepted."""
    attributes = {"inference.task.id": submission.task_id, "inference.model.name": submission.model.name}
    return submission.record().queue, attributes
