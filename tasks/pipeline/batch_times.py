"""How long batches took lately, and so which tasks cannot end in time any more."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from inference.domain import ModelRef
from inference.errors import DeadlineExceeded
from inference.lifecycle.expiry_log import some_of
from tasks.pipeline.jobs import Job

logger = logging.getLogger(__name__)

#: Batches that are remembered, and for how many seconds: so that one time when the machine was slow does not count for ever.
_BATCHES, _AGE_S = 16, 10.0
#: One batch alone may have met a moment when the machine stood still.
_ENOUGH = 2


class BatchTimes:
    """The times of the last batches of one model. Only those of the version that is served now count.

    They end tasks without a run, so they are lower bounds: what a batch waited for other models or a lock is not in them.

    Args:
        served: the version that the next batch runs on.
        warm_up_s: seconds that one image took when that version was loaded; infinite where that is not known.
        clock: in seconds, as `Job.deadline_at`.
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
        #: when it ended, the version that it ran on, its size, and its seconds
        self._last: deque[tuple[float, ModelRef, int, float]] = deque(maxlen=_BATCHES)

    def note(self, model: ModelRef, size: int, seconds: float) -> None:
        """A batch has run for so many seconds inside the predictor process."""
        self._last.append((self._clock(), model, size, seconds))

    def least_s(self, size: int) -> float:
        """Seconds that a batch of so many images takes at least; 0 where fewer than two have run lately.

        Images of a larger batch take less each, and a smaller batch takes less than all of it: either gives a lower bound. Much
        smaller ones count only where there is nothing else. No batch takes longer than its images one by one did at warm-up,
        unless the machine is slower now, which may be over at any time.
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
        """The jobs that can still end before their deadline in a batch of so many; the others are given to `end`."""
        in_time: list[Job] = []
        late: list[str] = []
        takes_s = self.least_s(size)
        for job in jobs:
            refusal = self._refusal(job, takes_s)
            if refusal is None:
                in_time.append(job)
            else:
                late.append(job.task_id)
                end(job, refusal)
        if late:
            logger.warning("%d tasks are not run: they cannot end before their deadline: %s", len(late), some_of(late))
        return in_time

    def _refusal(self, job: Job, takes_s: float) -> DeadlineExceeded | None:
        """The error of a job that has less time left than its batch takes; None where it has enough."""
        left_s = job.deadline_at - self._clock()
        if left_s >= takes_s and left_s > 0:
            return None
        if left_s <= 0:
            return DeadlineExceeded("the task's deadline passed before it ran", task_id=job.task_id)
        return DeadlineExceeded(
            f"the task was not run: {left_s:.3f} s before its deadline, and the model takes {takes_s:.3f} s", task_id=job.task_id
        )
