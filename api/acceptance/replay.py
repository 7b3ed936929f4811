"""Replay of a task: its image is sent again as a new task, with the options and the webhook of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from api.forms.predict import PredictForm
from api.forms.preference import Preference
from api.forms.webhook import WebhookChoice
from inference.domain import ImageFormat, TaskRecord
from inference.errors import ImageGone, ImageNotFound, TaskNotFinished
from inference.lifecycle.task_images import TaskImages


def read_replay(
    record: TaskRecord,
    images: TaskImages,
    *,
    possible_sinks: tuple[str, ...],
    idempotency_key: str,
    hold: Callable[[int], None],
) -> PredictForm:
    """Return the request for a task again; the result goes to those of its sinks that are still configured.

    Args:
        hold: as in `TaskImages.read`.

    Raises:
        TaskNotFinished: the task waits or runs.
        ImageGone: its image is not kept.
    """
    image = _image_of(record, images, hold)
    header = record.item.header
    is_raw = header is not None and header.format is ImageFormat.RAW
    return PredictForm(
        image=image,
        content_type=None,
        url=None,
        request_id=record.request_id,
        model=record.model.name,
        shape=header.shape if header and is_raw else None,
        dtype=header.dtype if header and is_raw else None,
        deadline_s=None,
        priority=record.priority,
        sinks=tuple(sink for sink in record.sinks if sink in possible_sinks),
        answer=record.item.answer,
        preference=Preference(wait_s=0),
        idempotency_key=idempotency_key,
        fingerprint=hashlib.sha256(f"replay {record.task_id}".encode()).hexdigest() if idempotency_key else "",
        replay_of=record.task_id,
        webhook=WebhookChoice(record.webhook.url, record.webhook.events) if record.webhook else WebhookChoice(url=""),
    )


def _image_of(record: TaskRecord, images: TaskImages, hold: Callable[[int], None]) -> bytes:
    """Read the image of a task that has ended; raises the errors of `read_replay`."""
    if not record.status.is_terminal:
        raise TaskNotFinished(
            f"the task is {record.status}", expected="a task that has ended; DELETE cancels a task", task_id=record.task_id
        )
    try:
        return images.read(record, hold)
    except ImageNotFound as error:
        expected = "the image, sent again as a new request"
        raise ImageGone(f"the task cannot run again: {error.detail}", expected=expected, task_id=record.task_id) from error
