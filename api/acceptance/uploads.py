"""Storing of images in the object store, and their deletion if the task is not accepted.

begin ──▶ wait ──▶ accepted: the image stays
             └──▶ refused, or the store takes too long: discard
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait as wait_for_futures
from functools import partial

from api.acceptance.thread_pool import BoundedThreadPool
from api.forms.predict import ImageForm
from inference.domain import QueueItem
from inference.errors import InferenceError, ServiceUnavailable
from inference.settings import UploadSettings
from inference.storage.protocol import ObjectStore

logger = logging.getLogger(__name__)

#: Limit for storing the images of one request, seconds; the deadline if that is shorter.
MAX_STORE_S = 60.0
#: Seconds that a request waits for the object store if the task record has a copy of its image.
GRACE_S = 1.0
#: Concurrent transfers: images of batches that are stored before their tasks are accepted, and objects that batches name.
_TRANSFERS = 8
#: Concurrent deletions of images of refused requests.
_DELETIONS = 8
#: Maximum bytes of all inline images of one request: they go to Redis in one call, during which all other calls wait. For
#: 32 photos of 61 KB that takes three times as long as storing them first.
_MAX_REQUEST_BYTES = 2**20
#: Concurrent puts of inline images in the background: enough for a few hundred clients. An image that is stored before its task
#: is accepted costs 1.4 times the CPU, since the worker fetches it; while the object store hangs, that is every image.
_MAX_BACKGROUND_PUTS = 256

_MB = 2**20

#: Stores an image; returns the milliseconds that it took.
_Put = Callable[[], float]


class Upload:
    """An image that is being stored, or is stored already.

    Args:
        transfer: the put, whose result is the milliseconds that it took; None if the image is stored already.
        image: the bytes of the image.
        is_inline: the bytes go into the task record too.
        in_background: the task does not wait for the put.
        deletions: the pool that deletes images of refused requests.
        store_ms: milliseconds that the put took, if the image is stored already.
    """

    def __init__(
        self,
        objects: ObjectStore,
        key: str,
        transfer: Future[float] | None,
        *,
        image: bytes,
        is_inline: bool,
        in_background: bool,
        deletions: BoundedThreadPool,
        store_ms: float = 0.0,
    ) -> None:
        self._objects = objects
        self._key = key
        self._image = image
        self._is_inline = is_inline
        self._deletions = deletions
        self._store_ms = store_ms
        self.transfer = transfer
        self.in_background = in_background

    @property
    def inline(self) -> bytes:
        """The image if it goes into the task record too; else empty."""
        return self._image if self._is_inline else b""

    @property
    def has_failed(self) -> bool:
        """Whether the put has ended with an error."""
        transfer = self.transfer
        return transfer is not None and transfer.done() and not transfer.cancelled() and transfer.exception() is not None

    def wait(self, timeout_s: float) -> float:
        """Wait until the image is stored; returns the milliseconds that it took.

        Raises:
            ServiceUnavailable: the object store fails, or takes longer than `timeout_s`: then the put continues.
        """
        if self.transfer is None:
            return self._store_ms
        try:
            error = self.transfer.exception(timeout_s)
        except FutureTimeoutError as late:
            raise ServiceUnavailable("the object store takes too long", retry_after_s=5) from late
        if isinstance(error, InferenceError):
            raise copy.copy(error) from error  # a copy: the original would keep this frame in memory
        if error is not None:
            raise error
        return self.transfer.result()

    @property
    def image(self) -> bytes:
        return self._image

    @property
    def is_stored(self) -> bool:
        """Whether the put has ended without an error."""
        transfer = self.transfer
        return transfer is None or (transfer.done() and not transfer.cancelled() and transfer.exception() is None)

    def on_end(self, call: Callable[[bytes, bool], object]) -> None:
        """Call `call` with the image, and whether it is stored, when the put has ended; at once if it has ended already."""
        image = self._image  # not `self`: the transfer keeps its callback, and `self` keeps the transfer

        def report(transfer: Future[float]) -> None:
            if not transfer.cancelled():
                call(image, transfer.exception() is None)

        if self.transfer is None:
            call(image, True)
        else:
            self.transfer.add_done_callback(report)

    def discard(self) -> None:
        """Delete the image, without waiting for a server: an image that is being stored is deleted when its put has ended."""
        transfer = self.transfer
        if transfer is not None and transfer.cancel():
            return
        delete = partial(_delete, self._objects, self._key)
        if transfer is None or (self._objects.is_local and transfer.done()):
            if not self.has_failed:
                delete()
        else:
            deletions = self._deletions
            transfer.add_done_callback(lambda _: deletions.begin(delete))


class NamedObject(Upload):
    """Object that a request only names: it stays where it is, accepted or refused."""

    def __init__(self) -> None:
        self.transfer = None
        self.in_background = False
        self._image, self._is_inline, self._store_ms = b"", False, 0.0

    def discard(self) -> None:
        """Leave the object where it is."""


def _delete(objects: ObjectStore, key: str) -> None:
    try:
        objects.delete(key)
    except InferenceError as error:
        logger.warning("%s belongs to no task; it is deleted later: %s", key, error.detail)
    except Exception:
        logger.exception("%s belongs to no task, and cannot be deleted", key)


def wait_for_all(uploads: Iterable[Upload], timeout_s: float) -> None:
    """Wait until every image is stored.

    Raises:
        ServiceUnavailable: the first error of a put, or the puts together take longer than `timeout_s`.
    """
    uploads = list(uploads)
    wait_for_futures(
        [upload.transfer for upload in uploads if upload.transfer is not None], timeout_s, return_when=FIRST_EXCEPTION
    )
    for upload in sorted(uploads, key=lambda upload: not upload.has_failed):
        upload.wait(0)


def discard_all(uploads: Iterable[Upload]) -> None:
    """Delete all of these images."""
    for upload in uploads:
        upload.discard()


class Uploads:
    """Starts to store images.

    An inline image goes into the task record too; any other image is stored before its task is accepted.
    """

    def __init__(self, objects: ObjectStore, settings: UploadSettings) -> None:
        self._objects = objects
        self._max_image_bytes = settings.inline_max_bytes
        self._max_inline_bytes = settings.inline_memory_mb * _MB
        #: bytes of the inline images in the task store at the last acceptance, and of the inline images since
        self._inline_bytes = 0
        #: whether the last put succeeded; while it did not, no task is accepted before its image is stored
        self._store_works = False
        self._puts = BoundedThreadPool(_MAX_BACKGROUND_PUTS)
        self._deletions = BoundedThreadPool(_DELETIONS)
        #: ids of the tasks whose images are being stored in the background
        self._in_background: set[str] = set()
        self.transfers = BoundedThreadPool(_TRANSFERS)

    def note_inline_bytes(self, count: int) -> None:
        """Note the bytes of the inline images in the task store, as reported with an acceptance."""
        self._inline_bytes = count

    def begin(self, item: QueueItem, form: ImageForm) -> Upload:
        """Store an image in a folder, or start to store it on a server; the answer to its request waits for that.

        Raises:
            ServiceUnavailable: the image cannot be written to the folder.
        """
        begin_put = None if self._objects.is_local else self._puts.begin
        return self._begin(item, form, is_inline=self._reserve_inline([form]), begin_put=begin_put)

    def begin_all(self, images: Sequence[tuple[QueueItem, ImageForm]]) -> list[Upload]:
        """Call `begin` for the images of one batch: all are inline, or none. If one fails, no image remains stored."""
        is_inline = self._reserve_inline([form for _, form in images])
        uploads: list[Upload] = []
        try:
            for item, form in images:
                uploads.append(self._begin(item, form, is_inline=is_inline, begin_put=self.transfers.begin))
        except BaseException:
            discard_all(uploads)
            raise
        return uploads

    def of_stored(self, key: str, *, store_ms: float) -> Upload:
        """Return the upload of an image that is in the object store already."""
        transfer: Future[float] = Future()
        transfer.set_result(round(store_ms, 3))
        return Upload(self._objects, key, transfer, image=b"", is_inline=False, in_background=False, deletions=self._deletions)

    def _reserve_inline(self, forms: Sequence[ImageForm]) -> bool:
        """Return whether every image is small and the task store has room for all; if so, reserve the room.

        While the object server fails or hangs, no image is inline: tasks are not accepted before their images are stored.
        """
        sizes = [len(form.image) for form in forms]
        room = min(self._max_inline_bytes - self._inline_bytes, _MAX_REQUEST_BYTES)
        is_inline = (
            all(size <= self._max_image_bytes for size in sizes)
            and sum(sizes) <= room
            and (self._objects.is_local or (self._store_works and len(self._in_background) < _MAX_BACKGROUND_PUTS))
        )
        if is_inline:
            self._inline_bytes += sum(sizes)
        return is_inline

    def _begin(
        self, item: QueueItem, form: ImageForm, *, is_inline: bool, begin_put: Callable[[_Put], Future[float]] | None
    ) -> Upload:
        """Begin with one image; `begin_put` starts the put of an image that is not inline, None stores it at once."""
        put = partial(self._put, item, form, is_durable=not is_inline)
        in_background = is_inline and not self._objects.is_local
        if is_inline:
            begin_put = partial(self._begin_in_background, item.task_id) if in_background else None
        return Upload(
            self._objects,
            item.object_key,
            begin_put(put) if begin_put else None,
            image=form.image,
            is_inline=is_inline,
            in_background=in_background,
            deletions=self._deletions,
            store_ms=0.0 if begin_put else put(),
        )

    def _begin_in_background(self, task_id: str, put: _Put) -> Future[float]:
        self._in_background.add(task_id)
        transfer = self._puts.begin(put)
        transfer.add_done_callback(lambda _: self._in_background.discard(task_id))
        return transfer

    def _put(self, item: QueueItem, form: ImageForm, *, is_durable: bool) -> float:
        began = time.perf_counter()
        metadata = {"request-id": form.request_id_of(item.task_id)}
        try:
            self._objects.put(
                item.object_key, form.image, content_type=form.content_type, metadata=metadata, is_durable=is_durable
            )
        except ServiceUnavailable:
            self._store_works = False
            raise
        self._store_works = True
        return round((time.perf_counter() - began) * 1000, 3)
