"""Periodic jobs for uploads: retention, uploads without a task, late images."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from inference.errors import ServiceUnavailable
from inference.runtime.loop_watch import LoopWatch

logger = logging.getLogger(__name__)

#: Seconds until a job is repeated after an outage of a server, and after another error.
_RETRY_S, _RETRY_AFTER_FAULT_S = 10.0, 60.0
#: Longest time between two runs of a job, and of one run: a folder or bucket may have millions of old uploads.
_JOB_LIMIT_S = 2 * 3600.0

#: A job returns the seconds until its next run.
Job = Callable[[], float]


class Housekeeping:
    """Runs each job when it is due; a job that fails neither blocks the others nor ends the deliveries.

    Args:
        jobs: by name.
    """

    turn_limit_s = _JOB_LIMIT_S

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self.watch = LoopWatch()

    def run(self, stopping: threading.Event) -> None:
        """Run the jobs until `stopping` is set; no error ends the loop."""
        due = dict.fromkeys(self._jobs, 0.0)
        while not stopping.is_set():
            for name, job in self._jobs.items():
                if due[name] <= time.monotonic() and not stopping.is_set():
                    self.watch.turn()
                    due[name] = time.monotonic() + _attempt(name, job)
            self.watch.turn()
            stopping.wait(max(0.0, min(due.values()) - time.monotonic()))


def _attempt(name: str, job: Job) -> float:
    try:
        return job()
    except ServiceUnavailable as error:
        logger.warning("%s: %s", name, error)
        return _RETRY_S
    except Exception:
        logger.exception("%s failed", name)
        return _RETRY_AFTER_FAULT_S
