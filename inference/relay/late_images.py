"""Late images: the object store did not take them when their tasks were accepted, so they are stored later."""

from __future__ import annotations

import logging

from inference.errors import InferenceError, ServiceUnavailable
from inference.runtime.log_context import log_context
from inference.storage.protocol import ObjectStore
from inference.task_store.stores import MaintenanceStore

logger = logging.getLogger(__name__)

_INTERVAL_S = 5.0
#: Maximum number of images in one pass.
_LIMIT = 100


class LateImages:
    """Copies late images from the task store to the object store. Several instances may run: they write the same objects."""

    def __init__(self, store: MaintenanceStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def store(self) -> float:
        """Store the oldest images; returns the seconds until the next call. Raises ServiceUnavailable."""
        return 0.0 if self.store_batch() == _LIMIT else _INTERVAL_S

    def store_batch(self) -> int:
        """Store the oldest images; returns the number handled. Raises ServiceUnavailable; the other images then stay late."""
        task_ids = self._store.list_kept_images(_LIMIT)
        for task_id in task_ids:
            with log_context(task_id=task_id):
                self._store.drop_image(task_id, is_stored=self._try_to_store(task_id))
        return len(task_ids)

    def _try_to_store(self, task_id: str) -> bool:
        """Call `_store_one`; an error is logged, since one image must not delay the others. Raises ServiceUnavailable."""
        try:
            return self._store_one(task_id)
        except ServiceUnavailable:
            raise
        except Exception as error:
            is_fault = not isinstance(error, InferenceError)
            logger.error("the image of task %s cannot be stored: %s", task_id, error, exc_info=is_fault)  # noqa: TRY400 mostly one line is enough
            return False

    def _store_one(self, task_id: str) -> bool:
        """Store one image; False if the image or its task no longer exists."""
        (record,), image = self._store.get_many([task_id]), self._store.get_kept_image(task_id)
        if record is None or image is None:
            logger.error("the image of task %s was not stored before its record expired", task_id)
            return False
        self._objects.put(record.item.object_key, image, metadata={"request-id": record.request_id})
        if self._store.get_many([task_id]) == [None]:  # the task was erased meanwhile
            self._objects.erase(record.item.object_key)
        return True
