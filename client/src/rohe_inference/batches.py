"""Batches and their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rohe_inference.errors import ApiError
from rohe_inference.images import ImageSource
from rohe_inference.results import Json, ModelReference, Result
from rohe_inference.tasks import read_error, read_result, take_result

ItemStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "expired", "refused", "gone"]


@dataclass(frozen=True)
class BatchItem:
    """One image of a batch.

    Attributes:
        index: its place in the request, from 0.
        status: that of its task; `refused` if it has no task, `gone` if its task is no longer known.
        task_id, request_id, model: None if it was refused.
        result: if it succeeded, else None.
        error: if it ended without a result, else None; it is ready to be raised.
        raw: the item as JSON.
    """

    index: int
    status: ItemStatus
    task_id: str | None
    request_id: str | None
    model: ModelReference | None
    result: Result | None
    error: ApiError | None = field(compare=False)
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json, index: int) -> BatchItem:
        """Read an item of a batch."""
        model = json["model"]
        return cls(
            index=index,
            status=json["status"],
            task_id=json["task_id"],
            request_id=json["request_id"],
            model=ModelReference.from_json(model) if model else None,
            result=read_result(json["result"]),
            error=read_error(json["error"], json["task_id"]),
            raw=json,
        )

    @property
    def is_ended(self) -> bool:
        """Whether the status is one that the item keeps."""
        return self.status not in {"queued", "running"}

    def get_result(self) -> Result:
        """Return the result.

        Raises:
            ApiError: the item's error, if it ended without a result.
            ValueError: the item has not ended, or its task is no longer known.
        """
        return take_result(self.result, self.error, f"image {self.index} is {self.status}")


@dataclass(frozen=True)
class CompletedImage:
    """One outcome of `as_completed`: the image as it was given, its place among all images from 0, and its item.

    The item's own `index` is its place in the batch that the image was sent with.
    """

    index: int
    image: ImageSource
    item: BatchItem

    @property
    def task_id(self) -> str | None:
        """Id of the task; None if the image was refused."""
        return self.item.task_id

    @property
    def status(self) -> ItemStatus:
        """Status of the item."""
        return self.item.status

    @property
    def result(self) -> Result | None:
        """Result, if it succeeded."""
        return self.item.result

    @property
    def error(self) -> ApiError | None:
        """Error, if it ended without a result."""
        return self.item.error

    def get_result(self) -> Result:
        """Return the result. Raises ApiError: the image has none."""
        return self.item.get_result()


@dataclass(frozen=True)
class BatchProgress:
    """Counts of a batch's items by status."""

    batch_id: str
    status: Literal["running", "ended"]
    counts: Mapping[str, int]
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> BatchProgress:
        """Read `{"batch_id": …, "status": …, "counts": …}`."""
        return cls(json["batch_id"], json["status"], json["counts"], json)

    @property
    def is_ended(self) -> bool:
        """Whether all items have ended."""
        return self.status == "ended"


@dataclass(frozen=True)
class Batch(BatchProgress):
    """Batch with its items, in the order of the request."""

    items: Sequence[BatchItem] = field(default=(), repr=False)

    @classmethod
    def from_json(cls, json: Json) -> Batch:
        """Read a batch object."""
        items = tuple(BatchItem.from_json(item, index) for index, item in enumerate(json["items"]))
        return cls(json["batch_id"], json["status"], json["counts"], json, items)
