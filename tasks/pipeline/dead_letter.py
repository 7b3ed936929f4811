"""Dead letters, written on a thread of their own: an object store that is down must not delay other tasks."""

from __future__ import annotations

import logging
import queue

from inference.domain import TaskRecord
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.lifecycle.task_log import record_context
from inference.storage.protocol import ObjectStore
from tasks.pipeline.context import StageContext
from tasks.pipeline.jobs import Ending, ItemEnd, Job
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)


class DeadLetterStage(Stage):
    """Ends jobs whose attempts all crashed, and keeps their input."""

    name = "dead_letters"

    def __init__(self, context: StageContext, objects: ObjectStore) -> None:
        super().__init__()
        self.inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._store = context.store
        self._objects = objects
        self._holder = context.holder
        self._held = context.held
        self._instruments = context.instruments

    def step(self) -> None:
        try:
            job = self.inbox.get(timeout=0.5)
        except queue.Empty:
            return
        record = self.until_available(lambda: self._move_to_dead_letters(job.task_id), give_up=self.stopping.is_set)
        if record is None:
            # The lease is not released, or the task would run again: the sweeper makes it a dead letter once the lease ends.
            self._held.stop_renewing([job])
            return
        if record.outcome is None:
            self._held.drop(job, ItemEnd(Ending.DROPPED))
        else:
            self._instruments.dead_letters.inc()
            self._held.drop(job, ItemEnd(Ending.COMMITTED, record.outcome))

    def _move_to_dead_letters(self, task_id: str) -> TaskRecord:
        record = self._store.get(task_id)
        if record.outcome is not None:  # an earlier try has committed it
            return record
        with record_context(record):
            logger.error("task %s is a dead letter: %d attempts crashed their process", task_id, record.deaths)
            move_to_dead_letters(self._store, self._objects, self._holder, record)
        return self._store.get(task_id)
