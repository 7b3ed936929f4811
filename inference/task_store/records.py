"""Conversion of task records to Redis hashes and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from inference.domain import (
    BatchRecord,
    CompletedTask,
    ModelRef,
    Outcome,
    QueueItem,
    TaskRecord,
    TaskStatus,
    TaskSubmission,
    decode_outcome,
)
from inference.errors import InferenceError
from inference.runtime.documents import known_members
from inference.runtime.log_context import log_context
from inference.task_store.protocol import Lease, LeaseState, TaskState
from inference.task_store.record_checks import check_model, check_numbers, check_outcome, checked_deliveries, number
from inference.tracing.context import stored_context
from inference.webhook import Webhook, WebhookAttempt, WebhookDelivery, WebhookEvent, WebhookState

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_DELIVERY = b"delivery:"
_REFUSAL = b"refusal:"


def record_fields(request: TaskSubmission) -> tuple[Any, ...]:
    """Return field, value, ... of the record, without the fields that the accept script makes of its other arguments."""
    return (
        *("model", model_field(request.model)),
        *("sinks", ",".join(request.sinks)),
        *("reply_to", request.reply_to),
        *("priority", request.priority),
        *(("batch", request.batch_id) if request.batch_id else ()),
        *(("replay_of", request.replay_of) if request.replay_of else ()),
        *(("owner", request.owner) if request.owner else ()),
        *(_webhook_fields(request.webhook) if request.webhook else ()),
        *(("trace", request.trace) if request.trace else ()),
    )


def model_field(model: ModelRef) -> bytes:
    return orjson.dumps([model.name, model.version, model.digest])


def model_prefix(name: str) -> bytes:
    """Return the bytes with which `model_field` of each version of this model begins; empty for an empty name."""
    return orjson.dumps([name])[:-1] + b"," if name else b""


def model_from(field: bytes) -> ModelRef:
    """Return the model of a record. Raises TypeError, ValueError."""
    model = ModelRef(*orjson.loads(field))
    check_model(model)
    return model


def item_field(request: TaskSubmission) -> bytes:
    """Return the field `item`: the data that tasks of one batch do not share."""
    return orjson.dumps([request.item, request.store_ms])


def from_hash(task_id: str, fields: dict[bytes, bytes]) -> TaskRecord:
    """Return the record of `task_id` from a whole HGETALL answer. Raises an exception of any class: a field is wrong."""
    item, store_ms = orjson.loads(fields[b"item"])
    check_numbers(store_ms)
    return TaskRecord(
        task_id=task_id,
        request_id=fields[b"request_id"].decode(),
        model=model_from(fields[b"model"]),
        queue=fields[b"queue"].decode(),
        item=QueueItem.from_dict(item),
        status=TaskStatus(fields[b"status"].decode()),
        created_at_ms=number(fields[b"created_at"]),
        deadline_at_ms=number(fields[b"deadline_at"]),
        started_at_ms=number(fields.get(b"started_at", b"0")),
        finished_at_ms=number(fields.get(b"finished_at", b"0")),
        attempts=number(fields.get(b"attempts", b"0")),
        deaths=number(fields.get(b"deaths", b"0")),
        store_ms=store_ms,
        priority=number(fields[b"priority"]),
        batch_id=fields.get(b"batch", b"").decode(),
        replay_of=fields.get(b"replay_of", b"").decode(),
        sinks=tuple(filter(None, fields.get(b"sinks", b"").decode().split(","))),
        outcome=_outcome_from(fields[b"outcome"]) if fields.get(b"outcome") else None,
        deliveries=checked_deliveries(_by_sink(fields, _DELIVERY)),
        refusals=_by_sink(fields, _REFUSAL),
        is_image_stored=b"unstored" not in fields,
        webhook=_webhook_from(fields) if b"webhook" in fields else None,
        webhook_delivery=_webhook_delivery_from(fields) if b"webhook_state" in fields else None,
        owner=fields.get(b"owner", b"").decode(),
        trace=stored_context(fields.get(b"trace")),
    )


def batch_field(batch: BatchRecord) -> bytes:
    """Return the value of a batch's key: a list of its entries, or an object with them and its owner if it has one."""
    return orjson.dumps({"owner": batch.owner, "entries": batch.entries} if batch.owner else batch.entries)


def batch_from(batch_id: str, value: bytes) -> BatchRecord:
    """Return a batch from the value of its key. Raises an exception of any class: it cannot be read."""
    found = orjson.loads(value)
    owner, entries = (found["owner"], found["entries"]) if isinstance(found, dict) else ("", found)
    for entry in entries:
        if not isinstance(entry, str):
            InferenceError.from_dict(entry).to_problem()
    return BatchRecord(batch_id, tuple(entries), owner)


#: Fields whose values `completed_from` gets.
COMPLETED_FIELDS = ("request_id", "created_at", "finished_at", "outcome", "owner", "trace")


def completed_from(task_id: str, values: Sequence[bytes | None]) -> CompletedTask | None:
    """Return a completed task from an HMGET answer; None if the task has not ended, or has no record."""
    request_id, created_at, finished_at, outcome, owner, trace = values
    if request_id is None or created_at is None or finished_at is None or outcome is None:
        return None
    return CompletedTask(
        _outcome_from(outcome),
        number(finished_at),
        task_id,
        request_id.decode(),
        number(created_at),
        owner=owner.decode() if owner else "",
        trace=stored_context(trace),
    )


def _outcome_from(field: bytes) -> Outcome:
    outcome = decode_outcome(field)
    check_outcome(outcome)
    return outcome


def lease_from(values: Sequence[Any]) -> Lease:
    """Return a lease from an answer of the script `lease`."""
    state, isolated, attempts, created, deadline, image, owner, request_id, batch_id, trace = values
    return Lease(
        LeaseState(state.decode()),
        isolated == b"1",
        int(attempts),
        int(created),
        int(deadline),
        image,
        owner=owner.decode(),
        request_id=request_id.decode(),
        batch_id=batch_id.decode(),
        trace=stored_context(trace),
    )


def state_from(task_id: str, values: Sequence[bytes]) -> TaskState:  # noqa: ARG001 as `readable` calls it
    """Return a state from an answer of the script `get_states`."""
    status, attempts, request_id, model, owner = values
    return TaskState(TaskStatus(status.decode()), number(attempts), request_id.decode(), model_from(model).name, owner.decode())


def readable(read: Callable[[str, T], R | None], task_id: str, found: T) -> R | None:
    """Return a record; None if it cannot be read, so that it does not fail the other records."""
    try:
        return read(task_id, found)
    except Exception:
        with log_context(task_id=task_id):
            logger.exception("the record of task %s cannot be read", task_id)
        return None


def _webhook_fields(webhook: Webhook) -> tuple[str, ...]:
    """Return the fields `webhook` (receiver and statuses, which the scripts read) and `webhook_url`."""
    statuses = ",".join(event.status for event in webhook.events)
    return ("webhook", f"{webhook.receiver} {statuses}", "webhook_url", webhook.url)


def _webhook_from(fields: dict[bytes, bytes]) -> Webhook:
    receiver, _, statuses = fields[b"webhook"].decode().partition(" ")
    return Webhook(fields[b"webhook_url"].decode(), receiver, tuple(map(WebhookEvent.of_status, statuses.split(","))))


def webhook_log_field(delivery: WebhookDelivery) -> bytes:
    """Return the field `webhook_log`."""
    return orjson.dumps([delivery.attempts, delivery.last_attempts])


def _webhook_delivery_from(fields: dict[bytes, bytes]) -> WebhookDelivery:
    attempts, last = orjson.loads(fields.get(b"webhook_log", b"[0,[]]"))
    check_numbers(attempts, *(value for attempt in last for value in (attempt["at_ms"], attempt["duration_ms"])))
    return WebhookDelivery(
        WebhookState(fields[b"webhook_state"].decode()),
        attempts,
        tuple(WebhookAttempt(**known_members(WebhookAttempt, attempt)) for attempt in last),
        number(fields.get(b"webhook_next_at", b"0")),
    )


def _by_sink(fields: dict[bytes, bytes], prefix: bytes) -> dict[str, str]:
    return {name.removeprefix(prefix).decode(): value.decode() for name, value in fields.items() if name.startswith(prefix)}
