"""Schemas of the data of events, and of the lines of JSON Lines."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.answer_schemas import BatchCounts, BatchItem, Task


class TaskChanges(TypedDict):
    """Data of an event `tasks`."""

    tasks: Annotated[list[Task], Field(max_length=100, description="newest first, without `prediction`")]
    omitted: NotRequired[Annotated[int, Field(ge=1, description="number of other tasks that have changed")]]


class BatchProgress(TypedDict):
    """Data of an event `batch`, and the last of JSON Lines."""

    batch_id: str
    status: Literal["running", "ended"]
    counts: BatchCounts


class IndexedBatchItem(BatchItem):
    """Data of an event `item`, and a line of JSON Lines."""

    index: Annotated[int, Field(ge=0, description="its place in the request")]


EVENT_SCHEMAS: tuple[type, ...] = (TaskChanges, BatchProgress, IndexedBatchItem)
