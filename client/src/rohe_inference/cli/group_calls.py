"""Calls for a group of photos: submit them as a batch, and wait for its items."""

from __future__ import annotations

from collections.abc import Sequence

from rohe_inference import AsyncClient, Batch, BatchItem, NotFound, WaitTimeout
from rohe_inference.cli.connection import is_of_image, outcome_of_error, raise_outage
from rohe_inference.cli.exits import CommandError, ExitCode
from rohe_inference.cli.journal import Group
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photos import Photo
from rohe_inference.errors import ApiError, ConnectionFailed
from rohe_inference.options import TaskOptions

#: Items that have ended are asked for this often while others of their batch go on, in seconds.
_WAIT_S = 2.0
_GONE = Outcome("gone", error={"code": "task_not_found", "detail": "the service does not know the task any more"})


def read_photos(photos: Sequence[Photo]) -> list[bytes]:
    """Return the bytes of files that could be read when their group was made."""
    try:
        return [photo.read() for photo in photos]
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be read any more: {error.strerror}", ExitCode.USAGE) from error


class GroupCalls:
    """Calls of one run."""

    def __init__(self, client: AsyncClient, options: TaskOptions, *, waits: bool) -> None:
        """`waits`: only items that have ended have outcomes; else all have."""
        self._client = client
        self._options = options
        self._waits = waits

    async def submit(self, images: Sequence[bytes], key: str) -> Batch | Outcome:
        """Submit images as a batch, under a key. Return the batch, or the outcome of the only image.

        Raises:
            Outage: the service cannot take it now.
            ApiError: the whole request is refused.
        """
        try:
            return await self._client.submit_batch(images, idempotency_key=key, **self._options)
        except (ApiError, ConnectionFailed) as error:
            raise_outage(error)
            if len(images) == 1 and isinstance(error, ApiError) and is_of_image(error):
                return outcome_of_error(error)
            raise

    async def wait(self, group: Group) -> dict[int, Outcome]:
        """Wait a little for the batch of a group, and return the outcomes so far, by the place of the image.

        Raises:
            Outage: the service does not answer.
        """
        batch_id = group.batch_id or ""
        try:
            return self.outcomes(await self._client.wait_batch(batch_id, timeout_s=_WAIT_S))
        except NotFound:
            return dict.fromkeys(range(len(group.photos)), _GONE)
        except WaitTimeout:
            return self.outcomes(await self._client.get_batch(batch_id))
        except (ApiError, ConnectionFailed) as error:
            raise_outage(error)
            raise

    def outcomes(self, batch: Batch) -> dict[int, Outcome]:
        """Return the outcomes of a batch, by the place of the image.

        Raises:
            ApiError: an image was refused for an option that is the same for all.
        """
        for item in batch.items:
            if item.status == "refused" and item.error is not None and not is_of_image(item.error):
                raise item.error
        return {item.index: _outcome(item) for item in batch.items if item.is_ended or not self._waits}


def _outcome(item: BatchItem) -> Outcome:
    raw = item.raw
    if item.status == "gone":
        return _GONE
    return Outcome(item.status, item.task_id, raw["model"], raw["result"], raw["error"])
