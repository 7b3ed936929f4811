"""Last stage: write outcomes into the records, many in one transaction; then the messages are acknowledged."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass

from inference.domain import Outcome
from inference.errors import ServiceUnavailable
from inference.task_store.protocol import Commit
from tasks.pipeline.context import StageContext
from tasks.pipeline.intake import drain
from tasks.pipeline.jobs import Ending, ItemEnd, Job
from tasks.pipeline.stage import Stage


@dataclass
class Finished:
    job: Job
    outcome: Outcome


class Committer(Stage):
    """Writes outcomes into the records and drops none.

    The outcomes of batches are committed on the batcher's thread. The stage's own thread commits failed jobs, and the outcomes
    that could not be written because the store was down.
    """

    name = "commit"

    def __init__(self, context: StageContext) -> None:
        super().__init__()
        self.inbox: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._store = context.store
        self._holder = context.holder
        self._held = context.held
        self._instruments = context.instruments

    def step(self) -> None:
        self._commit_from_inbox(drain(self.inbox, first_timeout_s=0.5))

    def commit_rest(self) -> None:
        """Commit the jobs that arrived after the last turn of the thread. Call it after the thread has ended."""
        self._commit_from_inbox(drain(self.inbox, first_timeout_s=0))

    def commit_at_once(self, finished: Sequence[Finished]) -> None:
        """Commit on the caller's thread; if the store is down, leave it to the stage's thread."""
        try:
            self._commit(finished)
        except ServiceUnavailable:
            self.commit_later(finished)

    def commit_later(self, finished: Sequence[Finished]) -> None:
        for one in finished:
            self.inbox.put(one)

    def commit_and_start(self, finished: Sequence[Finished], task_ids: Sequence[str]) -> list[int | None]:
        """Commit and start the next tasks in one round trip, on the caller's thread.

        Returns the answer of the store's `start`. Raises ServiceUnavailable.
        """
        if not finished:
            return self._store.start(self._holder, task_ids)
        began = time.monotonic()
        with self._instruments.commit_duration.time():
            written, attempts = self._store.commit_and_start(self._holder, _commits(finished), task_ids)
        self._note(finished, written, began)
        return attempts

    def _commit_from_inbox(self, finished: Sequence[Finished]) -> None:
        """Commit; give up if the worker stops while the store is down: the leases run out, and another worker runs the tasks."""
        self.until_available(lambda: self._commit(finished), give_up=self.stopping.is_set)

    def _commit(self, finished: Sequence[Finished]) -> None:
        if not finished:
            return
        began = time.monotonic()
        with self._instruments.commit_duration.time():
            written = self._store.commit(self._holder, _commits(finished))
        self._note(finished, written, began)

    def _note(self, finished: Sequence[Finished], written: Sequence[bool], began: float) -> None:
        self._instruments.note_ends([one.outcome for one, ours in zip(finished, written, strict=True) if ours])
        self._instruments.leases_lost.inc(written.count(False))
        for one, ours in zip(finished, written, strict=True):
            if one.job.span is not None:
                one.job.span.add_step("commit", began)
            end = ItemEnd(Ending.COMMITTED, one.outcome) if ours else ItemEnd(Ending.DROPPED)
            self._held.drop(one.job, end)


def _commits(finished: Sequence[Finished]) -> list[Commit]:
    return [Commit(one.job.task_id, one.job.attempt, one.outcome) for one in finished]
