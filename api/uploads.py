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
from typing import Any

from api.predict_form import ImageForm
from api.side_by_side import SideBySide
from inference.errors import InferenceError, ServiceUnavailable
from inference.messages import QueueItem
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
#: While no more tasks than these wait for a model, and the images of a request take no more than this together, larger ones
#: count as small too: what lies in Redis stays bounded, and no call keeps it busy for long.
_QUIET_TASKS = 256
_MAX_QUIET_BYTES = 2**20
#: Small images that are stored beside the queue, at a time: enough for a few hundred clients, since what is stored first, as all
#: is that comes while the object store hangs, costs 1.4 times the CPU: the worker fetches it.
_MAX_BESIDE = 256

#: Gives the milliseconds that it took.
_Put = Callable[[], float]


class _Done:
    """A put that is done at once, with the parts of a Future that are asked for: a real one takes longer than a small image."""

    def __init__(self, put: _Put) -> None:
        self._ms = 0.0
        self._error: InferenceError | None = None
        try:
            self._ms = put()
        except InferenceError as error:
            self._error = copy.copy(error)  # without its traceback, which has this frame: a cycle, and the image in it

    def done(self) -> bool:
        return True

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        call(self)

    def exception(self, timeout: float | None = None) -> InferenceError | None:
        del timeout
        return self._error

    def result(self) -> float:
        """Milliseconds of a put that did not fail."""
        return self._ms


_Transfer = Future[float] | _Done


class Upload:
    """An image that is being stored, or is.

    Args:
        image: its bytes.
        is_inline: they go into the task's record too.
        is_beside: its task does not wait for it.
        deletions: where images of refused requests are deleted.
    """

    def __init__(
        self,
        objects: ObjectStore,
        key: str,
        transfer: _Transfer,
        *,
        image: bytes,
        is_inline: bool,
        is_beside: bool,
        deletions: SideBySide,
    ) -> None:
        self._objects = objects
        self._key = key
        self._image = image
        self._is_inline = is_inline
        self._deletions = deletions
        self.transfer = transfer
        self.is_beside = is_beside

    @property
    def inline(self) -> bytes:
        """The image where it goes into the task's record too; else empty."""
        return self._image if self._is_inline else b""

    @property
    def has_failed(self) -> bool:
        """Whether its put has ended, and not well."""
        return self.transfer.done() and not self.transfer.cancelled() and self.transfer.exception() is not None

    def wait(self, timeout_s: float) -> float:
        """Gives the milliseconds that it took.

        Raises:
            ServiceUnavailable: the object store fails, or takes longer than `timeout_s`: then it has not failed yet.
        """
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
        return self.transfer.done() and not self.transfer.cancelled() and self.transfer.exception() is None

    def on_end(self, call: Callable[[bytes, bool], object]) -> None:
        """Call with the image, and whether it is stored, once its put has ended, now or later."""
        image = self._image  # not this upload, which has the transfer, which keeps what it is to call

        def look(transfer: _Transfer) -> None:
            if not transfer.cancelled():
                call(image, transfer.exception() is None)

        self.transfer.add_done_callback(look)

    def discard(self) -> None:
        """Leave nothing of it. Nobody waits for a server: what is being stored is deleted once that has ended."""
        if self.transfer.cancel():
            return
        delete = partial(_delete, self._objects, self._key)
        if self._objects.is_local and self.transfer.done():
            if not self.has_failed:
                delete()
        else:
            deletions = self._deletions
            self.transfer.add_done_callback(lambda _: deletions.begin(delete))


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
        [upload.transfer for upload in uploads if isinstance(upload.transfer, Future)], timeout_s, return_when=FIRST_EXCEPTION
    )
    for upload in sorted(uploads, key=lambda upload: not upload.has_failed):
        upload.wait(0)


class Uploads:
    """Starts to store images.

    A small image goes into its task's record too; any other is stored before its task is accepted.
    """

    def __init__(self, objects: ObjectStore, settings: UploadSettings) -> None:
        self._objects = objects
        self._settings = settings
        #: the last one succeeded; while that is not so, no task is accepted before its image is stored
        self._store_works = False
        self._puts = SideBySide(_MAX_BESIDE)
        self._deletions = SideBySide(_DELETIONS)
        #: ids of the tasks whose images are being stored beside the queue
        self._are_beside: set[str] = set()
        self.transfers = SideBySide(_TRANSFERS)

    def begin(self, item: QueueItem, form: ImageForm, *, waiting: int) -> Upload:
        """Store an image in a folder, or start storing it on a server; whoever answers its request waits for that first.

        Args:
            waiting: tasks that wait for the same model.
        """
        start: Callable[[_Put], _Transfer] = _Done if self._objects.is_local else self._puts.begin
        return self._begin(item, form, is_copy=self._go_into_records([form], waiting), start=start)

    def begin_all(self, images: Sequence[tuple[QueueItem, ImageForm]], *, waiting: int) -> list[Upload]:
        """`begin` for the images of one batch, side by side."""
        is_copy = self._go_into_records([form for _, form in images], waiting)
        return [self._begin(item, form, is_copy=is_copy, start=self.transfers.begin) for item, form in images]

    def _go_into_records(self, forms: Sequence[ImageForm], waiting: int) -> bool:
        """Where they are small; while a server fails or hangs their tasks are not accepted before they are stored."""
        sizes = [len(form.image) for form in forms]
        is_quiet = waiting + len(sizes) <= _QUIET_TASKS and sum(sizes) <= _MAX_QUIET_BYTES
        limit = max(self._settings.inline_max_bytes, self._settings.inline_quiet_max_bytes if is_quiet else 0)
        if any(size > limit for size in sizes):
            return False
        return self._objects.is_local or (self._store_works and len(self._are_beside) < _MAX_BESIDE)

    def _begin(self, item: QueueItem, form: ImageForm, *, is_copy: bool, start: Callable[[_Put], _Transfer]) -> Upload:
        """`start` begins the put of what is no copy."""

        def put() -> float:
            return self._put(item, form, is_copy=is_copy)

        is_beside = is_copy and not self._objects.is_local
        if is_beside:
            start = partial(self._begin_beside, item.task_id)
        elif is_copy:
            start = _Done
        return Upload(
            self._objects,
            item.object_key,
            start(put),
            image=form.image,
            is_inline=is_copy,
            is_beside=is_beside,
            deletions=self._deletions,
        )

    def _begin_beside(self, task_id: str, put: _Put) -> Future[float]:
        self._are_beside.add(task_id)
        transfer = self._puts.begin(put)
        transfer.add_done_callback(lambda _: self._are_beside.discard(task_id))
        return transfer

    def _put(self, item: QueueItem, form: ImageForm, *, is_copy: bool) -> float:
        began = time.perf_counter()
        metadata = {"request-id": form.request_id_of(item.task_id)}
        try:
            self._objects.put(item.object_key, form.image, content_type=form.content_type, metadata=metadata, is_copy=is_copy)
        except ServiceUnavailable:
            self._store_works = False
            raise
        self._store_works = True
        return round((time.perf_counter() - began) * 1000, 3)
