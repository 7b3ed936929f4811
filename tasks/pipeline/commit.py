"""Last stage: outcomes into the records, many in one transaction; then the messages are acknowledged."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass

from inference.domain import Outcome
from inference.errors import ServiceUnavailable
from inference.task_store.protocol import Commit
from inference.task_store.stores import WorkerStore
from tasks.pipeline.jobs import Ending, HeldJobs, ItemEnd, Job
from tasks.pipeline.lease import drain
from tasks.pipeline.stage import Stage


@dataclass
class Finished:
    job: Job
    outcome: Outcome


class Committer(Stage):
    """Commits on the batcher's thread, and on its own what failed and what a store that was down refused; nothing is dropped."""

    name = "commit"

    def __init__(self, store: WorkerStore, owner: str, held: HeldJobs) -> None:
        super().__init__()
        self.inbox: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._store = store
        self._owner = owner
        self._held = held

    def step(self) -> None:
        self._commit_from_inbox(drain(self.inbox, first_timeout_s=0.5))

    def commit_rest(self) -> None:
        """After the thread has ended: what came since its last turn."""
        self._commit_from_inbox(drain(self.inbox, first_timeout_s=0))

    def commit_at_once(self, finished: Sequence[Finished]) -> None:
        """On the caller's thread, which has nothing else to do; where the store is down, it goes the usual way."""
        try:
            self._commit(finished)
        except ServiceUnavailable:
            self.commit_later(finished)

    def commit_later(self, finished: Sequence[Finished]) -> None:
        for one in finished:
            self.inbox.put(one)

    def commit_and_start(self, finished: Sequence[Finished], task_ids: Sequence[str]) -> list[int | None]:
        """On the caller's thread, which starts the next tasks: both in one round trip.

        Gives what the store's `start` does. Raises ServiceUnavailable.
        """
        if not finished:
            return self._store.start(self._owner, task_ids)
        written, attempts = self._store.commit_and_start(self._owner, _commits(finished), task_ids)
        self._note(finished, written)
        return attempts

    def _commit_from_inbox(self, finished: Sequence[Finished]) -> None:
        """Gives up at a stop while the store is down: the leases run out, and another worker does it again."""
        self.until_available(lambda: self._commit(finished), give_up=self.stopping.is_set)

    def _commit(self, finished: Sequence[Finished]) -> None:
        if not finished:
            return
        self._note(finished, self._store.commit(self._owner, _commits(finished)))

    def _note(self, finished: Sequence[Finished], written: Sequence[bool]) -> None:
        for one, ours in zip(finished, written, strict=True):
            end = ItemEnd(Ending.COMMITTED, one.outcome) if ours else ItemEnd(Ending.DROPPED)
            self._held.drop(one.job, end)


def _commits(finished: Sequence[Finished]) -> list[Commit]:
    return [Commit(one.job.task_id, one.job.attempt, one.outcome) for one in finished]
