"""Images on their way into the object store, and out again when their task is not accepted."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import quote

from api.predict_form import ImageForm
from inference.errors import ServiceUnavailable
from inference.messages import QueueItem
from inference.storage import ObjectStore


class Uploads:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, item: QueueItem, form: ImageForm) -> float:
        """Gives the milliseconds that it took. Raises ServiceUnavailable; then nothing is left behind."""
        began = time.perf_counter()
        content_type = form.content_type or "application/octet-stream"
        # A request id may be of any letters, and an object's metadata is of headers.
        metadata = {"request-id": quote(form.request_id)}
        self._objects.put(item.object_key, form.image, content_type=content_type, metadata=metadata)
        return round((time.perf_counter() - began) * 1000, 3)

    def discard(self, item: QueueItem) -> None:
        with contextlib.suppress(ServiceUnavailable):
            self._objects.delete(item.object_key)
