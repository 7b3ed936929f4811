"""Second stage: read images from the object store, and decode them into slots of shared memory."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from inference.domain import ImageFormat
from inference.errors import DeadlineExceeded, InferenceError, InvalidImage, ObjectNotFound, UploadLost
from inference.imaging import ImageLimits, OpenImage, inspect, open_image
from inference.lifecycle.task_images import is_upload
from inference.models.predictor.arena import SlotArena
from inference.models.spec import ModelSpec
from inference.runtime.log_context import log_context
from inference.storage.protocol import ObjectStore
from tasks.pipeline.decode_memory import TINY_BYTES, DecodeMemory
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)

#: Seconds until other work is looked for while no slot is free.
_SLOT_WAIT_S = 0.2


def _do_nothing() -> None:
    pass


@dataclass(frozen=True)
class Reserved:
    """A job whose image is large, and the memory that is reserved for it."""

    job: Job
    needed_bytes: int


class Fetcher:
    """Brings one job's image into a slot. Bytes that break the decoder fail only their own job.

    Args:
        memory: budget for all images that this worker decodes at the same time; None: a budget of its own.
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
        self._input = spec.image_input
        self._arena = arena
        self._limits = limits
        self._memory = memory or DecodeMemory()
        self._max_bytes = max_bytes

    def load(
        self,
        job: Job,
        stage: Stage,
        slot: int | None = None,
        *,
        later: Callable[[Reserved], None] | None = None,
        meanwhile: Callable[[], None] = _do_nothing,
    ) -> bool:
        """Fetch, wait for a free slot (or take `slot`), decode; return False if `stage` stops first, or `later` will be called.

        Args:
            slot: released if the image does not get into it.
            later: called when memory for a large image is reserved, if the image has to wait for it; meanwhile neither its bytes
                nor a slot are kept. None: the image is decoded without a reservation.
            meanwhile: called repeatedly while no slot is free.

        Raises:
            DeadlineExceeded: the object store was down until the deadline, or no slot was free.
            InferenceError: there is no image for this job; the error says why.
        """
        is_filled = False
        try:
            image = self._open(job, stage)
            if image is not None and slot is None:
                slot = self._wait_for_slot(job, stage, meanwhile)
            if image is not None and slot is not None:
                is_filled = self._decode(job, image, slot, later)
        finally:
            if slot is not None and not is_filled:
                self._arena.release(slot)
        return is_filled

    def load_reserved(self, reserved: Reserved, stage: Stage, *, again: Callable[[Job], None]) -> bool:
        """Load an image that has waited for its memory, as `load` does.

        Args:
            again: called if no slot becomes free soon: the memory is released, since other models need it.
        """
        try:
            slot = self._arena.acquire(timeout_s=_SLOT_WAIT_S)
            if slot is not None:
                return self.load(reserved.job, stage, slot)
        finally:
            self._memory.release_large(reserved.needed_bytes)
        again(reserved.job)
        return False

    def _wait_for_slot(self, job: Job, stage: Stage, meanwhile: Callable[[], None]) -> int | None:
        """Return a free slot; None if `stage` stops first."""
        while not stage.stopping.is_set():
            stage.watch.turn()
            slot = self._arena.acquire(timeout_s=_SLOT_WAIT_S)
            if slot is not None:
                return slot
            if time.monotonic() > job.deadline_at:
                raise DeadlineExceeded("the deadline passed before the image was decoded", task_id=job.task_id)
            meanwhile()
        return None

    def _decode(self, job: Job, image: OpenImage, slot: int, later: Callable[[Reserved], None] | None) -> bool:
        """Decode an image if there is memory for it; else request the memory, and `later` is called.

        The memory is reserved after the slot: a job that has it waits for nothing else, and releases it once it is decoded.
        """
        needed = image.needed_bytes
        if needed <= TINY_BYTES:
            self._fill(job, image, slot)
        elif not self._memory.is_large(needed):
            with self._memory.reserve_small(needed):
                self._fill(job, image, slot)
        elif later is None:
            self._fill(job, image, slot)
        elif not self._memory.reserve_large(needed, partial(later, Reserved(job, needed))):
            return False
        else:
            try:
                self._fill(job, image, slot)
            finally:
                self._memory.release_large(needed)
        return True

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
        spec, limits = self._input, self._limits
        try:
            header = job.item.header or inspect(data, shape=None, dtype=None, content_type=None, spec=spec, limits=limits)
            image = open_image(data, header, spec, limits)
        except InferenceError:
            raise
        except Exception as error:
            raise _broken(job, error) from error
        job.timings["decode_ms"] = (time.monotonic() - began) * 1000
        return image

    def _fill(self, job: Job, image: OpenImage, slot: int) -> None:
        began = time.monotonic()
        try:
            image.decode_into(self._arena.images[slot])
        except InferenceError:
            raise
        except Exception as error:
            raise _broken(job, error) from error
        job.slot = slot
        job.ready_at = time.monotonic()
        job.timings["decode_ms"] += (job.ready_at - began) * 1000
        if job.span is not None:
            job.span.add_step("decode", began)

    def take_free_slot(self) -> int | None:
        """Return a slot if one is free now, else None."""
        return self._arena.acquire(timeout_s=0)

    def _fetch(self, job: Job) -> bytes:
        began = time.monotonic()
        try:
            data = self._objects.get(job.item.object_key, max_bytes=self._max_bytes)
        except ObjectNotFound as error:
            if job.item.header is None and not is_upload(job.item):  # a Celery client named it
                raise
            public = "the task's own upload is gone"
            raise UploadLost(f"{public}: {error.detail}", public=public, task_id=job.task_id) from error
        except InferenceError:
            raise
        except Exception as error:
            with log_context(**job.log_fields):
                logger.exception("fetching the image of task %s failed", job.task_id)
            raise InferenceError("the image could not be fetched; the worker's log says why", task_id=job.task_id) from error
        job.timings["fetch_ms"] = (time.monotonic() - began) * 1000
        if job.span is not None:
            job.span.add_step("fetch", began, {"inference.image.bytes": len(data)})
        return data


def _broken(job: Job, error: Exception) -> InvalidImage:
    with log_context(**job.log_fields):
        logger.error("the image of task %s broke the decoder", job.task_id, exc_info=error)
    return InvalidImage("the image cannot be decoded", field="image")


class FetchStage(Stage):
    """Loads the images of jobs on `threads` threads, as far ahead as there are free slots.

    If there is no memory for a large image, it is loaded later, and other images overtake it.

    Args:
        pass_on: gets the decoded jobs.
        fail: gets the jobs that have no image, and the reason.
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
        #: jobs to load; None wakes a thread when memory is granted
        self.inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._granted: queue.SimpleQueue[Reserved] = queue.SimpleQueue()
        self._fetcher = fetcher
        self._pass_on = pass_on
        self._fail = fail
        self._lock = threading.Lock()
        #: jobs in the inbox, or taken from it by a thread and not loaded yet
        self._waiting = 0

    def step(self) -> None:
        self._load_granted()
        try:
            job = self.inbox.get(timeout=0.5)
        except queue.Empty:
            return
        if job is not None:
            self._finish(job, lambda: self._fetcher.load(job, self, later=self._grant, meanwhile=self._load_granted))
            with self._lock:
                self._waiting -= 1

    def _grant(self, reserved: Reserved) -> None:
        self._granted.put(reserved)
        self.inbox.put(None)

    def _load_granted(self) -> None:
        """Load an image whose memory is reserved, before the inbox and while no slot is free: other models need that memory."""
        try:
            reserved = self._granted.get_nowait()
        except queue.Empty:
            return
        self._finish(reserved.job, lambda: self._fetcher.load_reserved(reserved, self, again=self._put))

    def _put(self, job: Job) -> None:
        with self._lock:
            self._waiting += 1
        self.inbox.put(job)

    def take(self, jobs: Iterable[Job]) -> None:
        """Take leased jobs. Raw bytes that came with the lease are copied into a free slot at once, not by another thread.

        If other jobs wait, they come first: a slot that becomes free is for them.
        """
        loaded = []
        for job in jobs:
            header = job.item.header
            may_go = job.image and header and header.format is ImageFormat.RAW and not self._waiting
            slot = self._fetcher.take_free_slot() if may_go else None
            if slot is None:
                self._put(job)
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
