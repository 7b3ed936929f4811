"""Submissions in the form that the accept script reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from inference.domain import TaskSubmission
from inference.task_store.protocol import Enqueue, Room
from inference.task_store.records import item_field, record_fields

#: Bytes that a submission counts for in addition to its images and messages: a coalesced call has 64 small ones, or 2 MB.
SUBMISSION_WEIGHT = 2**15


def weight(submission: Sequence[Any]) -> int:
    """Return the bytes that a submission counts for."""
    return SUBMISSION_WEIGHT + sum(len(part) for part in submission if isinstance(part, bytes))


def in_ms(seconds: float) -> int:
    return round(seconds * 1000)


def message_arguments(message: Enqueue) -> tuple[Any, ...]:
    return (message.list_key, message.payload, message.wake_up_key, message.turns_key, message.cost)


def task_arguments(requests: Iterable[TaskSubmission], rooms: Mapping[str, Room], *, has_turns: bool) -> Iterator[Any]:
    """Yield the script's arguments from the rooms on.

    Args:
        rooms: limits by queue.
        has_turns: whether owners take turns.
    """
    yield len(rooms)
    for queue, room in rooms.items():
        yield from (queue, room.tasks, room.window, int(has_turns))
    for task in requests:
        fields = record_fields(task)
        yield from (task.task_id, task.request_id, item_field(task), task.image)
        yield from (task.queue, in_ms(task.deadline_s), task.priority, len(fields), *fields)
