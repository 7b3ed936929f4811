"""Batcher: decoded jobs wait here for the predictor, and are cut into batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from tasks.pipeline.jobs import Job


class Batcher:
    """Queue of ready jobs that is cut into batches: all ready jobs up to a size; isolated jobs come one by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._isolated: deque[Job] = deque()
        self._isolated_is_next = False

    def put(self, jobs: Sequence[Job]) -> None:
        """Add jobs in one step: `take_batch` sees all of them or none, so no batch starts with only the first of them."""
        with self._changed:
            for job in jobs:
                (self._isolated if job.isolated else self._jobs).append(job)
            if jobs:
                self._changed.notify()

    def take_batch(self, max_size: int, *, fill_wait_s: float, timeout_s: float) -> list[Job]:
        """Take the next batch; empty if nothing came within `timeout_s`.

        A batch that is not full waits until `fill_wait_s` after its first job became ready (0: it starts at once).
        """
        with self._changed:
            if not self._changed.wait_for(self._has_jobs, timeout_s):
                return []
            if self._isolated and (self._isolated_is_next or not self._jobs):
                self._isolated_is_next = False
                return [self._isolated.popleft()]
            self._isolated_is_next = True
            if fill_wait_s > 0:
                left_s = self._jobs[0].ready_at + fill_wait_s - time.monotonic()
                self._changed.wait_for(lambda: len(self._jobs) >= max_size, max(0.0, left_s))
            return [self._jobs.popleft() for _ in range(min(max_size, len(self._jobs)))]

    def drain(self) -> list[Job]:
        """Take all waiting jobs."""
        with self._changed:
            jobs = [*self._jobs, *self._isolated]
            self._jobs.clear()
            self._isolated.clear()
        return jobs

    def _has_jobs(self) -> bool:
        return bool(self._jobs or self._isolated)
