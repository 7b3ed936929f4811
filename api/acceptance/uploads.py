"""Images on their way into the object store, and out again when their task is not accepted.

begin ──▶ wait ──▶ accepted: it stays
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

#: Limit for storing the images of one request, seconds; its deadline where that is less.
MAX_STORE_S = 60.0
#: Seconds that a request whose image travels with its record, and so is safe, waits for the object store.
GRACE_S = 1.0
#: Images of batches that are stored before their tasks are accepted, and objects that batches name: at a time.
_TRANSFERS = 8
#: Images of refused requests that are deleted, at a time.
_DELETIONS = 8
#: Bytes that the inline images of one request may have together: they go to Redis in one call, during which all others wait. For
#: 32 photos of 61 KB those calls take three times as long as storing them first.
_MAX_REQUEST_BYTES = 2**20
#: Inline images that are stored beside the queue, at a time: enough for a few hundred clients, since what is stored first, as all
#: is that comes while the object store hangs, costs 1.4 times the CPU: the worker fetches it.
_MAX_BESIDE = 256

_MB = 2**20

#: Gives the milliseconds that it took.
_Put = Callable[[], float]


class Upload:
    """An image that is being stored, or is.

    Args:
        transfer: its put, whose result is the milliseconds that it took; None where it is stored already.
        image: its bytes.
        is_inline: they go into the task's record too.
        in_background: its task does not wait for it.
        deletions: where images of refused requests are deleted.
        store_ms: milliseconds that its put took, where it is stored already.
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
        """The image where it goes into the task's record too; else empty."""
        return self._image if self._is_inline else b""

    @property
    def has_failed(self) -> bool:
        """Whether its put has ended, and not well."""
        transfer = self.transfer
        return transfer is not None and transfer.done() and not transfer.cancelled() and transfer.exception() is not None

    def wait(self, timeout_s: float) -> float:
        """Gives the milliseconds that it took.

        Raises:
            ServiceUnavailable: the object store fails, or takes longer than `timeout_s`: then it has not failed yet.
        """
        if self.transfer is None:
            return self._store_ms
        try:
            error = self.transfer.exception(timeout_s)
        except FutureTimeoutError as late:
            raise ServiceUnavailable("the object store takes too long", retry_after_s=5) from late
        if isinstance(error, InferenceError):
            raise copy.copy(error) from error  # itself, it would have this frame too
        if error is not None:
            raise error
        return self.transfer.result()

    @property
    def image(self) -> bytes:
        return self._image

    @property
    def is_stored(self) -> bool:
        """Whether its put has ended well."""
        transfer = self.transfer
        return transfer is None or (transfer.done() and not transfer.cancelled() and transfer.exception() is None)

    def on_end(self, call: Callable[[bytes, bool], object]) -> None:
        """Call with the image, and whether it is stored, once its put has ended, now or later."""
        image = self._image  # not this upload, which has the transfer, which keeps what it is to call

        def look(transfer: Future[float]) -> None:
            if not transfer.cancelled():
                call(image, transfer.exception() is None)

        if self.transfer is None:
            call(image, True)
        else:
            self.transfer.add_done_callback(look)

    def discard(self) -> None:
        """Leave nothing of it. Nobody waits for a server: what is being stored is deleted once that has ended."""
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


def _delete(objects: ObjectStore, key: str) -> None:
    try:
        objects.delete(key)
    except InferenceError as error:
        logger.warning("%s is of no task, and is deleted later: %s", key, error.detail)
    except Exception:
        logger.exception("%s is of no task, and cannot be deleted", key)


def wait_for_all(uploads: Iterable[Upload], timeout_s: float) -> None:
    """Wait until every image is stored.

    Raises:
        ServiceUnavailable: the first that fails, or they take longer than `timeout_s` together.
    """
    uploads = list(uploads)
    wait_for_futures(
        [upload.transfer for upload in uploads if upload.transfer is not None], timeout_s, return_when=FIRST_EXCEPTION
    )
    for upload in sorted(uploads, key=lambda upload: not upload.has_failed):
        upload.wait(0)


def discard_all(uploads: Iterable[Upload]) -> None:
    """Leave nothing of any of them."""
    for upload in uploads:
        upload.discard()


class Uploads:
    """Starts to store images.

    An inline image goes into its task's record too; any other is stored before its task is accepted.
    """

    def __init__(self, objects: ObjectStore, settings: UploadSettings) -> None:
        self._objects = objects
        self._max_image_bytes = settings.inline_max_bytes
        self._max_inline_bytes = settings.inline_memory_mb * _MB
        #: of all images that the task store had inline at the last acceptance, and of those that were begun since
        self._inline_bytes = 0
        #: the last one succeeded; while that is not so, no task is accepted before its image is stored
        self._store_works = False
        self._puts = BoundedThreadPool(_MAX_BESIDE)
        self._deletions = BoundedThreadPool(_DELETIONS)
        #: ids of the tasks whose images are being stored beside the queue
        self._in_background: set[str] = set()
        self.transfers = BoundedThreadPool(_TRANSFERS)

    def note_inline_bytes(self, count: int) -> None:
        """Take note of the bytes that the task store has inline, as it told with an acceptance."""
        self._inline_bytes = count

    def begin(self, item: QueueItem, form: ImageForm) -> Upload:
        """Store an image in a folder, or start storing it on a server; whoever answers its request waits for that first.

        Raises:
            ServiceUnavailable: the folder does not take it.
        """
        begin_put = None if self._objects.is_local else self._puts.begin
        return self._begin(item, form, is_inline=self._go_inline([form]), begin_put=begin_put)

    def begin_all(self, images: Sequence[tuple[QueueItem, ImageForm]]) -> list[Upload]:
        """`begin` for the images of one batch, side by side: all of them are inline, or none. Where one fails nothing is left."""
        is_inline = self._go_inline([form for _, form in images])
        uploads: list[Upload] = []
        try:
            for item, form in images:
                uploads.append(self._begin(item, form, is_inline=is_inline, begin_put=self.transfers.begin))
        except BaseException:
            discard_all(uploads)
            raise
        return uploads

    def _go_inline(self, forms: Sequence[ImageForm]) -> bool:
        """Whether each is small and the task store has room for all; then that counts as taken.

        While a server fails or hangs, tasks are not accepted before their images are stored.
        """
        sizes = [len(form.image) for form in forms]
        room = min(self._max_inline_bytes - self._inline_bytes, _MAX_REQUEST_BYTES)
        is_inline = (
            all(size <= self._max_image_bytes for size in sizes)
            and sum(sizes) <= room
            and (self._objects.is_local or (self._store_works and len(self._in_background) < _MAX_BESIDE))
        )
        if is_inline:
            self._inline_bytes += sum(sizes)
        return is_inline

    def _begin(
        self, item: QueueItem, form: ImageForm, *, is_inline: bool, begin_put: Callable[[_Put], Future[float]] | None
    ) -> Upload:
        """`begin_put` begins the put of an image that is not inline; None: it is made at once."""
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
