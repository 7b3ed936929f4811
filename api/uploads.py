"""Images on their way into the object store, and out again when their task is not accepted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import Future
from urllib.parse import quote

from api.predict_form import ImageForm
from api.side_by_side import SideBySide
from inference.errors import ServiceUnavailable
from inference.messages import QueueItem
from inference.storage import ObjectStore

#: To and from the object store at a time, over all requests of this process.
_TRANSFERS = 32


class Upload:
    """An image that is being stored, or is.

    Args:
        inline: the image's bytes where they go into the task's record too, so that the task need not wait for the object store.
    """

    def __init__(self, objects: ObjectStore, key: str, transfer: Future[float], inline: bytes) -> None:
        self._objects = objects
        self._key = key
        self._transfer = transfer
        self.inline = inline

    def wait(self) -> float:
        """Gives the milliseconds that it took. Raises ServiceUnavailable; then nothing is left in the object store."""
        return self._transfer.result()

    @property
    def store_ms(self) -> float:
        """Milliseconds that its task waited for it."""
        return 0.0 if self.inline else self.wait()

    def discard(self) -> None:
        with contextlib.suppress(ServiceUnavailable):
            self.wait()
            self._objects.delete(self._key)


class Uploads:
    """Starts them.

    Args:
        inline_max_bytes: an image up to this size is stored beside the queue, a larger one before its task is accepted.
    """

    def __init__(self, objects: ObjectStore, *, inline_max_bytes: int) -> None:
        self._objects = objects
        self._inline_max_bytes = inline_max_bytes
        #: the last one succeeded; while that is not so, no task is accepted before its image is stored
        self._store_works = False
        self.transfers = SideBySide(_TRANSFERS)

    def begin(self, images: Iterable[tuple[QueueItem, ImageForm]]) -> list[Upload]:
        """Start storing images of one request; whoever answers it waits for the uploads first."""
        inline_max_bytes = self._inline_max_bytes if self._store_works else -1
        return [self._begin(item, form, is_inline=len(form.image) <= inline_max_bytes) for item, form in images]

    def _begin(self, item: QueueItem, form: ImageForm, *, is_inline: bool) -> Upload:
        transfer = self.transfers.begin(lambda: self._put(item, form))
        return Upload(self._objects, item.object_key, transfer, form.image if is_inline else b"")

    def _put(self, item: QueueItem, form: ImageForm) -> float:
        began = time.perf_counter()
        content_type = form.content_type or "application/octet-stream"
        # A request id may be of any letters, and an object's metadata is of headers.
        metadata = {"request-id": quote(form.request_id)}
        try:
            self._objects.put(item.object_key, form.image, content_type=content_type, metadata=metadata)
        except ServiceUnavailable:
            self._store_works = False
            raise
        self._store_works = True
        return round((time.perf_counter() - began) * 1000, 3)
