"""Second stage: bytes from the object store, decoded into a slot of shared memory."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from inference.errors import DeadlineExceeded, InferenceError, InvalidImage, ObjectNotFound, UploadLost
from inference.imaging import ImageFormat, ImageLimits, decode_into, inspect
from inference.models.arena import SlotArena
from inference.models.spec import ModelSpec
from inference.storage import ObjectStore
from tasks.jobs import Job
from tasks.stage import Stage

logger = logging.getLogger(__name__)


class Fetcher:
    """Brings one job's image into a slot; what the decoder makes of strange bytes is that job's failure alone."""

    def __init__(self, objects: ObjectStore, spec: ModelSpec, arena: SlotArena, limits: ImageLimits) -> None:
        self._objects = objects
        self._spec = spec
        self._arena = arena
        self._limits = limits

    def load(self, job: Job, stage: Stage, slot: int | None = None) -> bool:
        """Fetch, wait for a free slot (or take `slot`), decode; False when `stage` is to stop first.

        Raises:
            DeadlineExceeded: the object store was down until then.
            InferenceError: there is no image for this job, and why.
        """
        data: bytes | None = job.image or stage.until_available(
            lambda: self._fetch(job),
            give_up=lambda: stage.stopping.is_set() or time.monotonic() > job.deadline_at,
        )
        if data is None and not stage.stopping.is_set():
            raise DeadlineExceeded("the object store was down until the deadline", task_id=job.task_id)
        while data is not None and slot is None and not stage.stopping.is_set():
            slot = self._arena.acquire(timeout_s=0.5)
        if data is None or slot is None:
            return False
        self._decode(job, data, slot)
        return True

    def free_slot(self) -> int | None:
        """None while there is none."""
        return self._arena.acquire(timeout_s=0)

    def _fetch(self, job: Job) -> bytes:
        began = time.monotonic()
        try:
            data = self._objects.get(job.item.object_key)
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

    def _decode(self, job: Job, data: bytes, slot: int) -> None:
        began = time.monotonic()
        try:
            spec, limits = self._spec.input, self._limits
            header = job.item.header or inspect(data, shape=None, dtype=None, content_type=None, spec=spec, limits=limits)
            decode_into(self._arena.images[slot], data, header, spec, limits)
        except InferenceError:
            self._arena.release(slot)
            raise
        except Exception as error:
            self._arena.release(slot)
            logger.exception("the image of task %s broke the decoder", job.task_id)
            raise InvalidImage("the image cannot be decoded", field="image") from error
        job.slot = slot
        job.ready_at = time.monotonic()
        job.timings["decode_ms"] = (job.ready_at - began) * 1000


class FetchStage(Stage):
    """Works through the jobs on `threads` threads; free slots are the measure of how far ahead.

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
        self.inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
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
        if self._load(job, slot=None):
            self._pass_on([job])
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
            elif self._load(job, slot):
                loaded.append(job)
        self._pass_on(loaded)

    def _load(self, job: Job, slot: int | None) -> bool:
        try:
            return self._fetcher.load(job, self, slot)
        except InferenceError as error:
            self._fail(job, error)
            return False
