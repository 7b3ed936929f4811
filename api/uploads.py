"""Images on their way into the object store, and out again when their task is not accepted."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

from api.predict_form import ImageForm
from api.side_by_side import SideBySide
from inference.errors import InferenceError, ServiceUnavailable
from inference.messages import QueueItem
from inference.settings import UploadSettings
from inference.storage import ObjectStore

#: Images of batches that are stored before their tasks are accepted, and objects that batches name: at a time.
_TRANSFERS = 8
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

    def exception(self, timeout: float | None = None) -> InferenceError | None:
        del timeout
        return self._error

    def result(self) -> float:
        """Of one that did not fail."""
        return self._ms


_Transfer = Future[float] | _Done


class Upload:
    """An image that is being stored, or is.

    Args:
        inline: the image's bytes where they go into the task's record too; else empty.
        is_beside: its task does not wait for it.
    """

    def __init__(self, objects: ObjectStore, key: str, transfer: _Transfer, *, inline: bytes, is_beside: bool) -> None:
        self._objects = objects
        self._key = key
        self._transfer = transfer
        self._is_beside = is_beside
        self.inline = inline

    def wait(self, timeout_s: float | None = None) -> float:
        """Gives the milliseconds that it took. Raises ServiceUnavailable, as it does when it takes longer than `timeout_s`."""
        try:
            error = self._transfer.exception(timeout_s)
        except FutureTimeoutError as late:
            raise ServiceUnavailable("the object store takes too long", retry_after_s=5) from late
        if isinstance(error, InferenceError):
            raise copy.copy(error) from error  # itself, it would have this frame too
        if error is not None:
            raise error
        return self._transfer.result()

    @property
    def store_ms(self) -> float:
        """Milliseconds that its task waits for it. Raises ServiceUnavailable; then nothing is left of the image."""
        return 0.0 if self._is_beside else self.wait()

    def discard(self) -> None:
        with contextlib.suppress(InferenceError):
            self.wait()
            self._objects.delete(self._key)


class Uploads:
    """Starts them.

    A small image goes into its task's record too; any other is stored before its task is accepted.
    """

    def __init__(self, objects: ObjectStore, settings: UploadSettings) -> None:
        self._objects = objects
        self._settings = settings
        #: the last one succeeded; while that is not so, no task is accepted before its image is stored
        self._store_works = False
        self._beside = SideBySide(_MAX_BESIDE)
        #: ids of the tasks whose images are being stored beside the queue
        self._are_beside: set[str] = set()
        self.transfers = SideBySide(_TRANSFERS)

    def begin(self, item: QueueItem, form: ImageForm, *, waiting: int) -> Upload:
        """Store an image, or start storing it where it is small; whoever answers its request waits for that first.

        Args:
            waiting: tasks that wait for the same model.
        """
        return self._begin(item, form, is_copy=self._go_into_records([form], waiting), start=_Done)

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
        inline = form.image if is_copy else b""
        return Upload(self._objects, item.object_key, start(put), inline=inline, is_beside=is_beside)

    def _begin_beside(self, task_id: str, put: _Put) -> Future[float]:
        self._are_beside.add(task_id)
        transfer = self._beside.begin(put)
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
