"""Images whose tasks go on though the object store does not take them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from api.uploads import Upload
from inference.errors import InferenceError
from inference.task_store import TaskStore

logger = logging.getLogger(__name__)


class UnstoredImages:
    """Gives such images to the task store, from which the relay stores them later."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    def keep_if_it_fails(self, uploads: Mapping[str, Upload]) -> None:
        """Keep an image once its put has failed, now or later.

        Args:
            uploads: by task id.
        """
        for task_id, upload in uploads.items():
            upload.on_failure(partial(self._keep, task_id))

    def _keep(self, task_id: str, image: bytes) -> None:
        try:
            self._store.keep_image(task_id, image)
        except InferenceError as error:
            logger.error("the image of task %s is lost: neither store takes it: %s", task_id, error)  # noqa: TRY400 no fault here
