"""Second stage: bytes from the object store, decoded into a slot of shared memory."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from inference.errors import DeadlineExceeded, InferenceError, InvalidImage, ObjectNotFound, UploadLost
from inference.imaging import ImageFormat, ImageLimits, OpenImage, inspect, open_image
from inference.models.arena import SlotArena
from inference.models.spec import ModelSpec
from inference.storage import ObjectStore
from tasks.decode_memory import TINY_BYTES, DecodeMemory
from tasks.jobs import Job
from tasks.stage import Stage

logger = logging.getLogger(__name__)

_NOT_COUNTED = nullcontext()


@dataclass(frozen=True)
class Reserved:
    """A job whose image is large, and the memory that is reserved for it."""

    job: Job
    needed_bytes: int


class Fetcher:
    """Brings one job's image into a slot; what the decoder makes of strange bytes is that job's failure alone.

    Args:
        memory: what all images of this worker that are being decoded may take together; None: one of its own.
        max_bytes: limit for an image in the object store; None: no limit.
    """

    def __init__(
        self,
        objects: ObjectStore,
        spec: ModelSpec,
        arena: SlotArena,
        limits: ImageLimits,
        *,
        memory: DecodeMemory | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._objects = objects
        self._spec = spec
        self._arena = arena
        self._limits = limits
        self._memory = memory or DecodeMemory()
        self._max_bytes = max_bytes

    def load(self, job: Job, stage: Stage, slot: int | None = None, *, later: Callable[[Reserved], None] | None = None) -> bool:
        """Fetch, wait for a free slot (or take `slot`), decode; False when `stage` is to stop first, or `later` follows.

        Args:
            slot: released where the image does not get into it.
            later: called when there is memory for a large image, where it has to wait for that; its bytes are not kept meanwhile.
                None: it waits for nobody.

        Raises:
            DeadlineExceeded: the object store was down until then.
            InferenceError: there is no image for this job, and why.
        """
        is_filled = False
        try:
            image = self._open(job, stage)
            is_filled = image is not None and self._decode(job, image, stage, slot, later)
        finally:
            if slot is not None and not is_filled:
                self._arena.release(slot)
        return is_filled

    def load_reserved(self, reserved: Reserved, stage: Stage) -> bool:
        """`load` for an image that has waited for its memory."""

        def load() -> bool:
            image = self._open(reserved.job, stage)
            return image is not None and self._fill(reserved.job, image, stage, None)

        return self._load_reserved(reserved, load)

    def _decode(
        self, job: Job, image: OpenImage, stage: Stage, slot: int | None, later: Callable[[Reserved], None] | None
    ) -> bool:
        """Decode an image once there is memory for it, or ask for that memory and let `later` follow."""
        needed = image.needed_bytes
        if needed <= TINY_BYTES:
            return self._fill(job, image, stage, slot)
        if not self._memory.is_large(needed):
            return self._fill(job, image, stage, slot, self._memory.small(needed))
        if later is None:
            return self._fill(job, image, stage, slot)
        reserved = Reserved(job, needed)
        if not self._memory.reserve_large(needed, lambda: later(reserved)):
            return False
        return self._load_reserved(reserved, lambda: self._fill(job, image, stage, slot))

    def _load_reserved(self, reserved: Reserved, load: Callable[[], bool]) -> bool:
        try:
            return load()
        finally:
            self._memory.release_large(reserved.needed_bytes)

    def _open(self, job: Job, stage: Stage) -> OpenImage | None:
        if time.monotonic() > job.deadline_at:
            raise DeadlineExceeded("the deadline passed before the image was decoded", task_id=job.task_id)
        data: bytes | None = job.image or stage.until_available(
            lambda: self._fetch(job),
            give_up=lambda: stage.stopping.is_set() or time.monotonic() > job.deadline_at,
        )
        if data is None and not stage.stopping.is_set():
            raise DeadlineExceeded("the object store was down until the deadline", task_id=job.task_id)
        if data is None:
            return None
        began = time.monotonic()
        spec, limits = self._spec.input, self._limits
        try:
            header = job.item.header or inspect(data, shape=None, dtype=None, content_type=None, spec=spec, limits=limits)
            image = open_image(data, header, spec, limits)
        except InferenceError:
            raise
        except Exception as error:
            raise _broken(job, error) from error
        job.timings["decode_ms"] = (time.monotonic() - began) * 1000
        return image

    def _fill(
        self, job: Job, image: OpenImage, stage: Stage, given: int | None, memory: AbstractContextManager[None] = _NOT_COUNTED
    ) -> bool:
        """Decode an image into the slot that was given, or a free one, while `memory` is held."""
        slot = given
        while slot is None and not stage.stopping.is_set():
            slot = self._arena.acquire(timeout_s=0.5)
        if slot is None:
            return False
        try:
            self._decode_into(slot, job, image, memory)
        except InferenceError:
            if given is None:
                self._arena.release(slot)
            raise
        return True

    def _decode_into(self, slot: int, job: Job, image: OpenImage, memory: AbstractContextManager[None]) -> None:
        try:
            with memory:
                began = time.monotonic()
                image.decode_into(self._arena.images[slot])
        except InferenceError:
            raise
        except Exception as error:
            raise _broken(job, error) from error
        job.slot = slot
        job.ready_at = time.monotonic()
        job.timings["decode_ms"] += (job.ready_at - began) * 1000

    def free_slot(self) -> int | None:
        """None while there is none."""
        return self._arena.acquire(timeout_s=0)

    def _fetch(self, job: Job) -> bytes:
        began = time.monotonic()
        try:
            data = self._objects.get(job.item.object_key, max_bytes=self._max_bytes)
        except ObjectNotFound as error:
            if job.item.header is None:  # not an upload of ours: a Celery client named it
                raise
            public = "the task's own upload is gone"
            raise UploadLost(f"{public}: {error.detail}", public=public, task_id=job.task_id) from error
        except InferenceError:
            raise
        except Exception as error:
            logger.exception("fetching the image of task %s failed", job.task_id)
            raise InferenceError("the image could not be fetched; the worker's log says why", task_id=job.task_id) from error
        job.timings["fetch_ms"] = (time.monotonic() - began) * 1000
        return data


def _broken(job: Job, error: Exception) -> InvalidImage:
    logger.error("the image of task %s broke the decoder", job.task_id, exc_info=error)
    return InvalidImage("the image cannot be decoded", field="image")


class FetchStage(Stage):
    """Works through the jobs on `threads` threads; free slots are the measure of how far ahead.

    A large image that there is no memory for goes back into the inbox when there is, and the others pass it.

    Args:
        pass_on: where decoded jobs go.
        fail: where jobs go that have no image.
    """

    name = "fetch"

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        threads: int,
        pass_on: Callable[[Sequence[Job]], None],
        fail: Callable[[Job, InferenceError], None],
    ) -> None:
        super().__init__(threads=threads)
        self.inbox: queue.SimpleQueue[Job | Reserved] = queue.SimpleQueue()
        self._fetcher = fetcher
        self._pass_on = pass_on
        self._fail = fail
        self._lock = threading.Lock()
        #: jobs in the inbox, or in a thread's hands
        self._waiting = 0

    def step(self) -> None:
        try:
            job = self.inbox.get(timeout=0.5)
        except queue.Empty:
            return
        if isinstance(job, Reserved):
            self._finish(job.job, lambda: self._fetcher.load_reserved(job, self))
            return
        self._finish(job, lambda: self._fetcher.load(job, self, later=self.inbox.put))
        with self._lock:
            self._waiting -= 1

    def take(self, jobs: Iterable[Job]) -> None:
        """Raw bytes that came with the lease are copied into a free slot at once, which is less than to hand them on.

        Unless others wait: a slot that becomes free is theirs.
        """
        loaded = []
        for job in jobs:
            header = job.item.header
            may_go = job.image and header and header.format is ImageFormat.RAW and not self._waiting
            slot = self._fetcher.free_slot() if may_go else None
            if slot is None:
                with self._lock:
                    self._waiting += 1
                self.inbox.put(job)
            elif self._attempt(job, partial(self._fetcher.load, job, self, slot)):
                loaded.append(job)
        self._pass_on(loaded)

    def _finish(self, job: Job, load: Callable[[], bool]) -> None:
        if self._attempt(job, load):
            self._pass_on([job])

    def _attempt(self, job: Job, load: Callable[[], bool]) -> bool:
        try:
            return load()
        except InferenceError as error:
            self._fail(job, error)
            return False
