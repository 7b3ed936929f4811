"""Images of tasks, read back from the place where each is kept.

open task: task store (inline) ──▶ late image: task store ──▶ object store ──▶ dead letter: its copy
"""

from __future__ import annotations

from collections.abc import Callable

from inference.domain import QueueItem, TaskRecord
from inference.errors import ImageNotFound, ObjectNotFound
from inference.storage.protocol import UPLOADS_PREFIX, ObjectStore, dead_letter_key
from inference.task_store.stores import SubmissionStore


class TaskImages:
    """Reads the images that clients sent with their tasks."""

    def __init__(self, store: SubmissionStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def read(self, record: TaskRecord, hold: Callable[[int], None]) -> bytes:
        """Return the bytes as they were sent.

        An object that a request only named is not returned: the right to have an object classified is none to read it.

        Args:
            hold: called with the size of a stored object before it is read, which may have any size; may raise.

        Raises:
            ImageNotFound: the image is not kept, or it is such an object.
            ServiceUnavailable: a store does not answer.
        """
        task_id, key = record.task_id, record.item.object_key
        if not is_upload(record.item):
            raise ImageNotFound("the image of this task is an object that its request named, and no upload", task_id=task_id)
        image = self._store.get_image(task_id) or self._store.get_kept_image(task_id)
        if image:
            return image
        try:
            return self._get(key, hold)
        except ObjectNotFound:
            return self._read_copy(task_id, hold)

    def _get(self, key: str, hold: Callable[[int], None]) -> bytes:
        hold(self._objects.size(key))
        return self._objects.get(key)

    def _read_copy(self, task_id: str, hold: Callable[[int], None]) -> bytes:
        """Return the copy of a dead letter. Raises ImageNotFound."""
        try:
            return self._get(dead_letter_key(task_id), hold)
        except ObjectNotFound as error:
            detail = "the image of this task is no longer kept: it was removed after uploads.retention_hours, or erased"
            raise ImageNotFound(detail, task_id=task_id) from error


def is_upload(item: QueueItem) -> bool:
    """Return whether the image belongs to its task; other images are objects that existed before."""
    return item.object_key.startswith(UPLOADS_PREFIX) and item.object_key.rpartition("/")[2] == item.task_id
