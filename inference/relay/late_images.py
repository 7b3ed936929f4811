"""Images that the object store did not take when their tasks were accepted: stored once it does."""

from __future__ import annotations

import logging

from inference.errors import InferenceError, ServiceUnavailable
from inference.storage.protocol import ObjectStore
from inference.task_store.stores import MaintenanceStore

logger = logging.getLogger(__name__)

_INTERVAL_S = 5.0
#: Images of one pass.
_LIMIT = 100


class LateImages:
    """Stores them from the task store's copy. Several may run: an object is the same whoever puts it."""

    def __init__(self, store: MaintenanceStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def store(self) -> float:
        """Store the oldest; gives the seconds until the next call. Raises ServiceUnavailable."""
        return 0.0 if self.store_some() == _LIMIT else _INTERVAL_S

    def store_some(self) -> int:
        """Store the oldest; gives how many are done with. Raises ServiceUnavailable: the others wait."""
        task_ids = self._store.kept_images(_LIMIT)
        for task_id in task_ids:
            is_stored = False
            try:
                is_stored = self._store_one(task_id)
            except ServiceUnavailable:
                raise
            except Exception as error:  # the others do not wait for this one
                is_fault = not isinstance(error, InferenceError)
                logger.error("the image of task %s cannot be stored: %s", task_id, error, exc_info=is_fault)  # noqa: TRY400 a line does mostly
            self._store.drop_image(task_id, is_stored=is_stored)
        return len(task_ids)

    def _store_one(self, task_id: str) -> bool:
        """False where it is not to be had any more, or its task is gone."""
        (record,), image = self._store.get_many([task_id]), self._store.kept_image(task_id)
        if record is None or image is None:
            logger.error("the image of task %s was not stored within the life of its record", task_id)
            return False
        self._objects.put(record.item.object_key, image, metadata={"request-id": record.request_id})
        return True
