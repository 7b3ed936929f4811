"""Renewal of the leases of all tasks that this worker holds."""

from __future__ import annotations

import logging

from inference.errors import ServiceUnavailable
from inference.runtime.loop_watch import TURN_LIMIT_S
from inference.task_store.stores import WorkerStore
from tasks.pipeline.jobs import HeldJobs
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)


class LeaseRenewer(Stage):
    """Renews the leases that this worker holds, three times in the life of a lease."""

    name = "leases"

    def __init__(self, store: WorkerStore, holder: str, held: HeldJobs, *, lease_s: float) -> None:
        self._interval_s = lease_s / 3
        super().__init__(turn_limit_s=TURN_LIMIT_S + self._interval_s)
        self._store = store
        self._holder = holder
        self._held = held

    def step(self) -> None:
        self.stopping.wait(self._interval_s)
        task_ids = self._held.task_ids()
        if not task_ids:
            return
        try:
            ours = self._store.renew(self._holder, task_ids)
        except ServiceUnavailable as error:
            logger.warning("cannot renew %d leases: %s", len(task_ids), error)
            return
        if not all(ours):
            # Canceled, expired, or taken over by another worker after a pause: their commit will be refused.
            logger.debug("this worker no longer holds %d of its tasks", ours.count(False))
