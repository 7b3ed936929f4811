"""Late images: their tasks continue although the object store has not taken them yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from api.acceptance.uploads import Upload
from inference.errors import InferenceError
from inference.runtime.log_context import log_context
from inference.task_store import SubmissionStore

logger = logging.getLogger(__name__)


class UnstoredImages:
    """Keeps late images in the task store, from which the relay stores them: this process may end before they are stored."""

    def __init__(self, store: SubmissionStore) -> None:
        self._store = store

    def keep(self, uploads: Mapping[str, Upload]) -> None:
        """Keep the images that are not stored yet.

        Args:
            uploads: by task id.
        """
        for task_id, upload in uploads.items():
            if not upload.is_stored:
                self._keep(task_id, upload.image)
                upload.on_end(partial(self._note_end, task_id))

    def _note_end(self, task_id: str, image: bytes, is_stored: bool) -> None:
        if not is_stored:
            self._keep(task_id, image)  # again: the task store may have been down the first time
            return
        try:
            self._store.drop_image(task_id, is_stored=True)
        except InferenceError as error:
            with log_context(task_id=task_id):
                logger.warning("the image of task %s is stored a second time: %s", task_id, error)

    def _keep(self, task_id: str, image: bytes) -> None:
        with log_context(task_id=task_id):
            self._try_to_keep(task_id, image)

    def _try_to_keep(self, task_id: str, image: bytes) -> None:
        try:
            if not self._store.keep_image(task_id, image):
                logger.error("the image of task %s is not kept: its task is gone, or too many images wait", task_id)
        except InferenceError as error:
            logger.error("neither store takes the image of task %s: %s", task_id, error)  # noqa: TRY400 the cause is not in this code
