"""First stage: write missing records, and take the lease of every item that arrives."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from inference.domain import Outcome, QueueItem, TaskStatus
from inference.errors import IdempotencyConflict, InferenceError
from inference.runtime.log_context import log_context
from inference.task_store.protocol import Lease, Leases, LeaseState
from tasks.pipeline.context import StageContext
from tasks.pipeline.jobs import Delivery, Ending, ItemEnd, Job
from tasks.pipeline.stage import Stage
from tasks.pipeline.tracing import start_task_span

T = TypeVar("T")

logger = logging.getLogger(__name__)


def drain(source: queue.SimpleQueue[T], *, first_timeout_s: float) -> list[T]:
    """Take everything from `source`; wait up to `first_timeout_s` for the first."""
    taken: list[T] = []
    with contextlib.suppress(queue.Empty):
        taken.append(source.get(timeout=first_timeout_s))
        while True:
            taken.append(source.get_nowait())
    return taken


class Intake(Stage):
    """Leases in one call all items that arrived since the last call, so that all prefetched tasks are leased at once.

    Args:
        pass_on: gets the leased jobs, all of a call together.
        fail: gets the jobs that cannot run, and the reason.
    """

    name = "intake"

    def __init__(
        self,
        context: StageContext,
        *,
        pass_on: Callable[[Sequence[Job]], None],
        fail: Callable[[Job, InferenceError], None],
    ) -> None:
        super().__init__()
        self.inbox: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._store = context.store
        self._holder = context.holder
        self._held = context.held
        self._clock = context.clock
        self._times = context.times
        self._tracer = context.tracer
        self._queue = context.spec.queue
        self._pass_on = pass_on
        self._fail = fail

    def step(self) -> None:
        arrived = drain(self.inbox, first_timeout_s=0.5)
        wanted: list[tuple[QueueItem, Delivery]] = []
        for delivery in arrived:
            # After a lost connection the broker delivers messages again that this worker holds already.
            wanted += [(i, delivery) for i in delivery.message.items if not self._held.join(i.task_id, delivery)]
        if wanted:
            found = self.until_available(lambda: self._lease(wanted), give_up=self.stopping.is_set)
            if found is None:
                return
            ours, leases = found
            self._clock.set(leases.now_ms)
            leased = [self._to_job(*one, lease, leases) for one, lease in zip(ours, leases.leases, strict=True)]
            jobs = [job for job in leased if job is not None]
            self._pass_on(self._times.in_time(jobs, 1, end=self._fail))
        for delivery in arrived:
            delivery.on_leased()

    def _lease(self, wanted: list[tuple[QueueItem, Delivery]]) -> tuple[list[tuple[QueueItem, Delivery]], Leases]:
        """Lease the items, without those whose id is that of another owner's task, which are reported as failed."""
        ours = []
        for item, delivery in wanted:
            unregistered_task = delivery.unregistered.get(item.task_id)
            if unregistered_task is not None:  # if the message is delivered again, its record is there already
                try:
                    self._store.accept(unregistered_task.request, enqueue=None, max_queue_depth=0)
                except IdempotencyConflict as error:
                    request = unregistered_task.request
                    with log_context(task_id=item.task_id, model=request.model.name, owner=request.owner):
                        logger.warning("the message of task %s is refused: another owner has a task with this id", item.task_id)
                    delivery.report_end(item.task_id, ItemEnd(Ending.DROPPED, Outcome.of_error(TaskStatus.FAILED, error)))
                    continue
            ours.append((item, delivery))
        return ours, self._store.lease(self._holder, [item.task_id for item, _ in ours])

    def _to_job(self, item: QueueItem, delivery: Delivery, lease: Lease, leases: Leases) -> Job | None:
        """Return the job that the next stage gets, if there is one."""
        if lease.state is not LeaseState.LEASED:
            delivery.report_end(item.task_id, ItemEnd(Ending.DROPPED))
            return None
        if self._held.join(item.task_id, delivery):  # it arrived twice at the same time
            return None
        job = Job(
            item,
            [delivery],
            isolated=lease.isolated,
            attempt=lease.attempts,
            deadline_at=time.monotonic() + (lease.deadline_at_ms - leases.now_ms) / 1000,
            image=lease.image,
            owner=lease.owner,
            request_id=lease.request_id,
            batch_id=lease.batch_id,
            trace=lease.trace,
            timings={"queue_ms": leases.now_ms - lease.created_at_ms},
        )
        if lease.trace and self._tracer is not None:
            job.span = start_task_span(self._tracer, self._queue, job.task_id, lease, leases.now_ms)
        self._held.add(job)
        unregistered_task = delivery.unregistered.get(item.task_id)
        if unregistered_task is not None and unregistered_task.refusal is not None:
            self._fail(job, unregistered_task.refusal)
            return None
        if lease.attempts:
            job.report_retry("the process of an earlier attempt died")
        return job
