"""Acceptance of batch requests: each item is checked separately, and all valid items are accepted together."""

from __future__ import annotations

import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from api.acceptance.batch_items import BatchItems, PreparedItem
from api.acceptance.dependencies import AcceptanceParts
from api.acceptance.named_images import takes_too_long
from api.acceptance.task_counts import count_accepted, count_refused
from api.acceptance.unstored_images import UnstoredImages
from api.acceptance.uploads import GRACE_S, MAX_STORE_S, Upload, discard_all, wait_for_all
from api.acceptance.validation import RequestValidator
from api.forms.batch import BatchForm
from api.security.rate_limit import note_use
from api.telemetry.tracing import in_send_span, task_context
from inference.access import Caller
from inference.domain import BatchRequest, TaskSubmission
from inference.errors import InferenceError, Overloaded
from inference.lifecycle.enqueue import accept_batch, may_be_accepted, withdraw_batch
from inference.lifecycle.replies import BatchWaiter
from inference.rollout.runtime_config import ConfigSnapshot
from inference.runtime.log_context import bind_log_fields
from inference.task_store import Room

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchSubmission:
    """An accepted batch and the waiter that receives the replies of its tasks."""

    batch_id: str
    waiter: BatchWaiter
    #: seconds from acceptance to the last deadline
    deadline_s: float
    #: the accepted request; None if an idempotency key led to an earlier batch
    batch: BatchRequest | None
    #: by task id
    uploads: Mapping[str, Upload] = field(default_factory=dict)


class BatchSubmissions:
    """Accepts batch requests."""

    def __init__(self, parts: AcceptanceParts) -> None:
        self.parts = parts
        self._unstored = UnstoredImages(parts.store)
        self._validator = RequestValidator(parts.broker, parts.settings, parts.webhooks)
        self._items = BatchItems(self._validator, parts.named_images, parts.ids)

    def submit(self, form: BatchForm, caller: Caller) -> BatchSubmission:
        """Accept the tasks of a batch; the waiter is to be closed.

        Args:
            caller: batch and tasks belong to its owner.

        Raises:
            InferenceError: the batch was refused as a whole; nothing of it remains stored.
        """
        try:
            return in_send_span(self.parts.tracer, lambda: self._submit(form, caller), _span_of)
        except InferenceError as error:
            count_refused(error, len(form.items))
            raise

    def _submit(self, form: BatchForm, caller: Caller) -> BatchSubmission:
        known_id = self._known_batch(form, caller.owner)
        if known_id is not None:
            return self._replayed(known_id)
        self.parts.owner_limits.check(caller)
        entries = self._prepare(form, self.parts.configuration.now(), caller)
        if form.is_all_or_none:
            _raise_first_error(entries)
        prepared = [entry for entry in entries if isinstance(entry, PreparedItem)]
        batch_id = uuid.uuid4().hex
        uploads = {one.item.task_id: one.stored for one in prepared if one.stored is not None}
        try:
            rooms = self._admit(prepared, caller)
        except BaseException:
            discard_all(uploads.values())
            raise
        with self.parts.admission.admitted(Counter(one.queue for one in prepared), caller.owner):
            uploads = self._store(prepared, uploads)
            requests = iter(self._requests(prepared, uploads, batch_id, caller.owner))
            batch = BatchRequest(
                batch_id,
                tuple(next(requests) if isinstance(entry, PreparedItem) else entry.to_dict() for entry in entries),
                form.idempotency_key,
                form.fingerprint,
                caller.owner,
            )
            submission = self._accept(batch, prepared, uploads, rooms, caller)
        if submission.batch is not None:  # else it is an earlier batch
            _count(entries)
        return submission

    def _store(self, prepared: Sequence[PreparedItem], stored: Mapping[str, Upload]) -> dict[str, Upload]:
        """Store the images that are not stored, and wait for those that are not stored in the background.

        Returns the uploads of all images by task id.

        Raises:
            ServiceUnavailable: the object store fails, or takes too long; no image remains stored.
        """
        uploads = dict(stored)
        sent = [(one.item, one.form) for one in prepared if one.stored is None]
        try:
            begun = self.parts.uploads.begin_all(sent)
            uploads |= {item.task_id: upload for (item, _), upload in zip(sent, begun, strict=True)}
            foreground = (upload for upload in uploads.values() if not upload.in_background)
            wait_for_all(foreground, min(_longest_s(prepared), MAX_STORE_S))
        except BaseException:
            discard_all(uploads.values())
            raise
        return uploads

    def confirm(self, submission: BatchSubmission) -> None:
        """Wait for images that are stored in the background: `Submissions.confirm` for a batch.

        Raises:
            ServiceUnavailable: an image cannot be stored, and no task has begun; nothing of the batch remains stored, unless it
                `may_be_accepted`.
        """
        try:
            wait_for_all(submission.uploads.values(), min(submission.deadline_s, GRACE_S))
        except Exception as error:
            has_failed = any(upload.has_failed for upload in submission.uploads.values())
            batch = submission.batch if has_failed else None
            if batch is not None and not batch.idempotency_key and withdraw_batch(self.parts.store, batch):
                discard_all(submission.uploads.values())
                raise
            logger.warning("not every image of batch %s is stored yet; its tasks continue: %r", submission.batch_id, error)
            self._unstored.keep(submission.uploads)

    def _prepare(self, form: BatchForm, snapshot: ConfigSnapshot, caller: Caller) -> list[PreparedItem | InferenceError]:
        prepare = partial(self._items.prepare, preference=form.preference, snapshot=snapshot, caller=caller)
        if all(item.image.url is None for item in form.items):
            return [prepare(item) for item in form.items]
        deadlines = (item.options.get("deadline_s") for item in form.items if isinstance(item.options, dict))
        timeout_s = min(MAX_STORE_S, self._validator.longest_deadline_s(deadlines, form.preference))
        try:
            pool = self.parts.named_images.pool_for(item.image.url for item in form.items)
            return pool.map(prepare, form.items, timeout_s=timeout_s)
        except TimeoutError as error:
            raise takes_too_long() from error

    def _admit(self, prepared: Sequence[PreparedItem], caller: Caller) -> dict[str, Room]:
        """Return the room by queue, for queues of which it is known. Raises Overloaded, RateLimited, ServiceUnavailable."""
        self.parts.webhooks.check_room(one.checked.webhook for one in prepared)
        by_queue = defaultdict(list)
        for one in prepared:
            by_queue[one.queue].append(one)
        for queue, ones in by_queue.items():
            image_bytes = sum(len(one.form.image) for one in ones)
            self.parts.pacing.wait(queue, caller.owner, len(ones), image_bytes=image_bytes)
        rooms = {
            queue: self.parts.admission.check(
                queue,
                model=ones[0].checked.model,
                deadline_s=min(one.checked.deadline_s for one in ones),
                sinks={sink for one in ones for sink in one.checked.sinks},
                count=len(ones),
                priority=min(one.form.priority for one in ones),
                owner=caller.owner,
            )
            for queue, ones in by_queue.items()
        }
        return {queue: room for queue, room in rooms.items() if room is not None}

    def _requests(
        self, prepared: Sequence[PreparedItem], uploads: Mapping[str, Upload], batch_id: str, owner: str
    ) -> list[TaskSubmission]:
        trace = task_context()

        def request(one: PreparedItem) -> TaskSubmission:
            upload = uploads[one.item.task_id]
            return TaskSubmission(
                task_id=one.item.task_id,
                request_id=one.form.request_id_of(one.item.task_id),
                model=one.checked.model,
                queue=one.queue,
                item=one.item,
                deadline_s=one.checked.deadline_s,
                sinks=one.checked.sinks,
                priority=one.form.priority,
                image=upload.inline,
                reply_to=self.parts.replies.channel,
                store_ms=0.0 if upload.in_background else upload.wait(0),
                batch_id=batch_id,
                webhook=one.checked.webhook,
                owner=owner,
                image_bytes=one.image_bytes,
                trace=trace,
            )

        return [request(one) for one in prepared]

    def _note_refusal(
        self, error: InferenceError, prepared: Sequence[PreparedItem], uploads: Mapping[str, Upload], caller: Caller
    ) -> None:
        """Remember the refusal, and discard the images, unless the batch `may_be_accepted`; set the time for another try."""
        self.parts.owner_limits.note(caller, error)
        if not may_be_accepted(error):
            discard_all(uploads.values())
        if isinstance(error, Overloaded):
            counts = Counter(one.queue for one in prepared)
            error.retry_after_s = max(self.parts.admission.retry_after_s(queue, count=count) for queue, count in counts.items())

    def _accept(
        self,
        batch: BatchRequest,
        prepared: Sequence[PreparedItem],
        uploads: Mapping[str, Upload],
        rooms: Mapping[str, Room],
        caller: Caller,
    ) -> BatchSubmission:
        waiter = self.parts.replies.expect_all([one.item.task_id for one in prepared])  # before any reply can arrive
        try:
            if prepared:
                self.parts.ids.check_age(min(one.item.task_id for one in prepared))  # the oldest: ids begin with the time
            accepted = accept_batch(
                self.parts.store,
                self.parts.broker,
                batch,
                max_message_items=self.parts.settings.worker.max_batch_size,
                max_queue_depth=self.parts.settings.limits.max_queue_depth,
                rooms=rooms,
                limits=caller.limits,
            )
        except BaseException as error:
            self.parts.replies.forget(waiter)
            if isinstance(error, InferenceError):
                self._note_refusal(error, prepared, uploads, caller)
            raise
        note_use(accepted.use)
        self.parts.uploads.note_inline_bytes(accepted.inline_bytes)
        if not accepted.created:  # two requests came concurrently with the same key
            self.parts.replies.forget(waiter)
            discard_all(uploads.values())
            return self._replayed(accepted.batch_id)
        for queue, count in Counter(one.queue for one in prepared).items():
            self.parts.admission.note_accepted(queue, count)
        bind_log_fields(batch_id=batch.batch_id)
        return BatchSubmission(batch.batch_id, waiter, _longest_s(prepared), batch, uploads)

    def _known_batch(self, form: BatchForm, owner: str) -> str | None:
        known = self.parts.store.find_idempotent(form.idempotency_key, owner=owner) if form.idempotency_key else None
        if known is not None and known.fingerprint != form.fingerprint:
            raise known.conflict()
        return known.batch_id if known is not None else None

    def _replayed(self, batch_id: str) -> BatchSubmission:
        """The earlier batch of an idempotency key; its replies may have gone to another process, or came long ago."""
        waiter = self.parts.replies.expect_all(self.parts.store.get_batch(batch_id).task_ids)
        try:
            records = self.parts.store.get_many(waiter.task_ids)
        except BaseException:
            self.parts.replies.forget(waiter)
            raise
        waiter.take_ends(records)
        lifetimes_s = ((record.deadline_at_ms - record.created_at_ms) / 1000 for record in records if record is not None)
        bind_log_fields(batch_id=batch_id)
        return BatchSubmission(batch_id, waiter, max(lifetimes_s, default=0.0), batch=None)


def _raise_first_error(entries: Iterable[PreparedItem | InferenceError]) -> None:
    """Raise the error of the first item that is refused."""
    for number, entry in enumerate(entries):
        if isinstance(entry, InferenceError):
            entry.add_prefix(f"image {number}")
            raise entry


def _count(entries: Iterable[PreparedItem | InferenceError]) -> None:
    for entry in entries:
        if isinstance(entry, PreparedItem):
            count_accepted(entry.checked.model.name)
        else:
            count_refused(entry)


def _longest_s(prepared: Iterable[PreparedItem]) -> float:
    """The longest of the deadlines, in seconds."""
    return max((one.checked.deadline_s for one in prepared), default=0.0)


def _span_of(submission: BatchSubmission) -> tuple[str, dict[str, str | int]]:
    """Return the queues of a batch, and the attributes of the span in which it was accepted."""
    tasks = submission.batch.tasks if submission.batch is not None else []
    queues = " ".join(sorted({task.queue for task in tasks}))
    return queues, {"inference.batch.id": submission.batch_id, "messaging.batch.message_count": len(tasks)}
