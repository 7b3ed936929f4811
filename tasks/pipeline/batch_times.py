"""Durations of recent batches, to find the tasks that can no longer end before their deadline."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from inference.domain import ModelRef
from inference.errors import DeadlineExceeded
from tasks.pipeline.jobs import Job

#: Batches that are remembered, and for how many seconds: a moment when the machine was slow must not count for ever.
_BATCHES, _AGE_S = 16, 10.0
#: A single batch may have run at a moment when the machine was very slow.
_ENOUGH = 2


class BatchTimes:
    """Durations of the last batches of one model. Only batches of the version that is served now count.

    Tasks are ended without a run because of them, so they are lower bounds: time that a batch waited for other models or a lock
    is not included.

    Args:
        served: the version that the next batch runs on.
        warm_up_s: seconds that one image took when that version was loaded; infinite if that is not known.
        clock: time in seconds, as in `Job.deadline_at`.
    """

    def __init__(
        self,
        served: Callable[[], ModelRef],
        *,
        warm_up_s: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served = served
        self._warm_up_s = warm_up_s
        self._clock = clock
        #: of each batch: when it ended, the version that it ran on, its size in images, its duration in seconds
        self._last: deque[tuple[float, ModelRef, int, float]] = deque(maxlen=_BATCHES)

    def note(self, model: ModelRef, size: int, seconds: float) -> None:
        """Note that a batch of `size` images ran for `seconds` in the predictor process."""
        self._last.append((self._clock(), model, size, seconds))

    def least_s(self, size: int) -> float:
        """Return the seconds that a batch of `size` images takes at least; 0 if fewer than two batches ran lately.

        An image takes less time in a larger batch, and a smaller batch takes less time as a whole: both are lower bounds. Much
        smaller batches count only if there are no others. No batch takes longer than its images took one by one at warm-up,
        unless the machine is slower now, and that may end at any time.
        """
        oldest_at, served = self._clock() - _AGE_S, self._served()
        last = [(other, seconds) for at, ran, other, seconds in tuple(self._last) if at >= oldest_at and ran == served]
        if len(last) < _ENOUGH:
            return 0.0
        bounds = [(other, seconds * min(1.0, size / other)) for other, seconds in last]
        alike = [bound for other, bound in bounds if 2 * other >= size]
        counted = alike if len(alike) >= _ENOUGH else [bound for _, bound in bounds]
        return min(*counted, self._warm_up_s() * size)

    def in_time(self, jobs: Sequence[Job], size: int, *, end: Callable[[Job, DeadlineExceeded], None]) -> list[Job]:
        """Return the jobs that can end before their deadline in a batch of `size`; call `end` with each of the others."""
        in_time: list[Job] = []
        takes_s = self.least_s(size)
        for job in jobs:
            refusal = self._refusal(job, takes_s)
            if refusal is None:
                in_time.append(job)
            else:
                end(job, refusal)
        return in_time

    def _refusal(self, job: Job, takes_s: float) -> DeadlineExceeded | None:
        """Return the error of a job that has less time left than its batch takes; None if it has enough."""
        left_s = job.deadline_at - self._clock()
        if left_s >= takes_s and left_s > 0:
            return None
        if left_s <= 0:
            return DeadlineExceeded("the task's deadline passed before it ran", task_id=job.task_id)
        return DeadlineExceeded(
            f"the task was not run: its deadline is in {left_s:.3f} s, and the model takes {takes_s:.3f} s", task_id=job.task_id
        )
