"""Accepted tasks as the accept script reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from inference.messages import PredictionRequest
from inference.task_store.protocol import Room
from inference.task_store.records import common_fields, in_common, item_field

#: Bytes that a submission of a gathered call counts for beside its images and messages: 64 small ones go together, or 2 MB.
SUBMISSION_WEIGHT = 2**15


def weight(submission: Sequence[Any]) -> int:
    """Bytes that a submission counts for."""
    return SUBMISSION_WEIGHT + sum(len(part) for part in submission if isinstance(part, bytes))


def in_ms(seconds: float) -> int:
    return round(seconds * 1000)


def grouped(requests: Iterable[PredictionRequest], rooms: Mapping[str, Room]) -> Iterator[Any]:
    """The script's groups of tasks: those that follow one another and have much in common say that once.

    Args:
        rooms: by queue, where there is a limit.
    """
    for _, group in itertools.groupby(requests, in_common):
        tasks = list(group)
        first, fields = tasks[0], common_fields(tasks[0])
        room = rooms.get(first.queue)
        limits = ("", "") if room is None else (room.tasks, room.window)
        yield from (first.queue, in_ms(first.deadline_s), first.priority, *limits, len(fields), *fields, len(tasks))
        for task in tasks:
            yield from (task.task_id, task.request_id, item_field(task), task.image)
