"""The whole task store in memory: what the contract suite says of a store, in the plainest way.

Held to the same contract as the store on Redis (`tests/contract/test_task_store_contract.py`), so that tests of what stands on a
store may use it in its place.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from support.fake_clock import FakeClock
from support.fake_task import FakeTask
from support.fake_task_table import FakeTaskTable

from inference.errors import (
    BatchNotFound,
    DeadlineExceeded,
    ServiceUnavailable,
    TaskAlreadyFinished,
    TaskNotFound,
)
from inference.messages import (
    BatchRecord,
    BatchRequest,
    EndedTask,
    Outcome,
    PredictionRequest,
    TaskRecord,
    TaskStatus,
)
from inference.task_store import (
    Accepted,
    AcceptedBatch,
    Commit,
    Enqueue,
    KnownKey,
    Leases,
    QueueLoad,
    QueuePlace,
    QueueStats,
    Reaped,
    RecordLife,
    Room,
    TaskPage,
)
from inference.task_store.redis_store import StorePolicy


class FakeTaskStore:
    """`TaskStore` in memory.

    Args:
        clock: the store's clock.
        on_enqueue: gets each message that `accept` is to push in the same step.
    """

    def __init__(
        self,
        clock: FakeClock | None = None,
        policy: StorePolicy | None = None,
        on_enqueue: Callable[[Enqueue], None] = lambda _: None,
    ) -> None:
        self.clock = clock or FakeClock()
        #: False: every call raises ServiceUnavailable
        self.available = True
        #: of the desired state
        self._policy = policy or StorePolicy()
        #: what `record_life` gives
        self.life = RecordLife(0.0, self._policy.result_ttl_s)
        self._table = FakeTaskTable(self.clock, self._policy)
        #: by sink: entry id and task id, in order of the commits
        self.outbox = self._table.outbox
        #: (channel, frames), as they were published
        self.replies = self._table.replies
        self._on_enqueue = on_enqueue
        self._lock = threading.RLock()
        self._batches: dict[str, BatchRequest] = {}
        #: by key: what it stands for, until when
        self._idempotency: dict[str, tuple[KnownKey, int]] = {}
        #: by task id
        self._kept_images: dict[str, bytes] = {}
        #: by queue and kind of `find_lost`, the number of the last task that the call before looked at
        self._looked_to: dict[tuple[str, bool], int] = defaultdict(int)

    # --- the API's side

    def accept(
        self, request: PredictionRequest, *, enqueue: Enqueue | None, max_queue_depth: int, room: Room | None = None
    ) -> Accepted:
        with self._step():
            if self._table.find(request.task_id):
                return Accepted(request.task_id, created=True)
            known = self._known(request.idempotency_key, request.fingerprint)
            if known is not None:
                return Accepted(known.task_id or "", created=False)
            self._table.check_room([request], max_queue_depth, {} if room is None else {request.queue: room})
            self._table.add(request)
            self._note_key(request.idempotency_key, KnownKey(request.fingerprint, task_id=request.task_id))
            if enqueue is not None:
                self._on_enqueue(enqueue)
            return Accepted(request.task_id, created=True)

    def accept_batch(
        self,
        batch: BatchRequest,
        *,
        enqueue: Sequence[Enqueue],
        max_queue_depth: int,
        rooms: Mapping[str, Room] = MappingProxyType({}),
    ) -> AcceptedBatch:
        with self._step():
            if batch.batch_id in self._batches:
                return AcceptedBatch(batch.batch_id, created=True)
            known = self._known(batch.idempotency_key, batch.fingerprint)
            if known is not None:
                return AcceptedBatch(known.batch_id or "", created=False)
            self._table.check_room(batch.tasks, max_queue_depth, rooms)
            for request in batch.tasks:
                self._table.add(request)
            self._batches[batch.batch_id] = batch
            self._note_key(batch.idempotency_key, KnownKey(batch.fingerprint, batch_id=batch.batch_id))
            for message in enqueue:
                self._on_enqueue(message)
            return AcceptedBatch(batch.batch_id, created=True)

    def withdraw(self, task_id: str) -> bool:
        with self._step():
            return self._table.remove([task_id])

    def withdraw_batch(self, batch_id: str) -> bool:
        with self._step():
            batch = self._batches.get(batch_id)
            is_gone = batch is None or self._table.remove(batch.record.task_ids)
            if is_gone:
                self._batches.pop(batch_id, None)
            return is_gone

    # --- uploads

    def tag(self) -> str:
        with self._step():
            return "abc123"

    def unknown(self, tag: str, task_ids: Sequence[str]) -> list[str]:
        with self._step():
            return [task_id for task_id in task_ids if tag == "abc123" and not self._table.find(task_id)]

    def record_life(self) -> RecordLife:
        with self._step():
            return self.life

    def keep_image(self, task_id: str, image: bytes) -> bool:
        with self._step():
            task = self._table.find(task_id)
            if task is not None:
                task.is_image_stored = False
                self._kept_images[task_id] = image
            return task is not None

    def kept_images(self, limit: int) -> list[str]:
        with self._step():
            return list(self._kept_images)[:limit]

    def kept_image(self, task_id: str) -> bytes | None:
        with self._step():
            return self._kept_images.get(task_id)

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        with self._step():
            self._kept_images.pop(task_id, None)
            task = self._table.find(task_id)
            if task is not None and is_stored:
                task.is_image_stored = True

    def count_kept_images(self) -> int:
        with self._step():
            return len(self._kept_images)

    # --- the API's side, continued

    def get_batch(self, batch_id: str) -> BatchRecord:
        with self._step():
            batch = self._batches.get(batch_id)
            if batch is None or (batch.tasks and not any(self._table.find(task.task_id) for task in batch.tasks)):
                raise BatchNotFound(f"there is no batch {batch_id}", batch_id=batch_id)
            return batch.record

    def get(self, task_id: str) -> TaskRecord:
        record = self.get_many([task_id])[0]
        if record is None:
            raise TaskNotFound(f"there is no task {task_id}", task_id=task_id)
        return record

    def image(self, task_id: str) -> bytes:
        with self._step():
            task = self._table.find(task_id)
            return task.request.image if task and not task.status.is_terminal else b""

    def get_many(self, task_ids: Sequence[str]) -> list[TaskRecord | None]:
        with self._step():
            found = (self._table.find(task_id) for task_id in task_ids)
            return [task.record() if task else None for task in found]

    def get_ended(self, task_ids: Sequence[str]) -> list[EndedTask | None]:
        return [
            EndedTask(one.outcome, one.finished_at_ms, one.task_id, one.request_id, one.created_at_ms)
            if one is not None and one.outcome is not None
            else None
            for one in self.get_many(task_ids)
        ]

    def find_by_request(self, request_id: str, *, after: int = 0, limit: int = 100) -> TaskPage:
        with self._step():
            tasks = filter(None, map(self._table.find, self._table.by_request[request_id]))
            rest = [task for task in tasks if task.number > after]
            page = rest[:limit]
            return TaskPage(tuple(task.request.task_id for task in page), page[-1].number if len(rest) > limit else None)

    def find_idempotent(self, key: str) -> KnownKey | None:
        with self._step():
            known, until_ms = self._idempotency.get(key, (KnownKey(""), 0))
            is_there = known.batch_id in self._batches or self._table.find(known.task_id or "")
            return known if until_ms > self._table.now_ms and is_there else None

    def cancel(self, task_id: str) -> TaskRecord:
        with self._step():
            task = self._table.find(task_id)
            if task is None:
                raise TaskNotFound(f"there is no task {task_id}", task_id=task_id)
            if task.status.is_terminal:
                raise TaskAlreadyFinished(f"the task has ended already: {task.status}", task_id=task_id)
            self._table.cancel(task_id)
            return task.record()

    def cancel_many(self, task_ids: Sequence[str]) -> list[bool]:
        with self._step():
            return [self._table.cancel(task_id) for task_id in task_ids]

    def places(self, task_ids: Mapping[str, Sequence[str]]) -> dict[str, QueuePlace]:
        with self._step():
            places = {}
            for queue, ids in task_ids.items():
                waiting = [task.request.task_id for task in self._table.waiting(queue)]
                rate = self.queue_stats(queue).drain_rate_per_s
                places |= {one: QueuePlace(waiting.index(one), rate) for one in ids if one in waiting}
            return places

    def queue_stats(self, queue: str) -> QueueStats:
        with self._step():
            waiting = self._table.waiting(queue)
            rate = self._table.paces[queue].rate_per_s if waiting or self._table.count_running(queue) else 0.0
            return QueueStats(len(waiting), self._table.oldest_age_ms(queue) / 1000, rate)

    def queue_load(self, queue: str, *, refused: int = 0) -> QueueLoad:
        with self._step():
            now_ms, pace, waiting = self._table.now_ms, self._table.paces[queue], self._table.waiting(queue)
            return QueueLoad(
                len(waiting),
                self._table.count_running(queue),
                ended=pace.ended,
                busy_s=pace.busy_ms / 1000,
                batches=pace.commits,
                urgent_per_s=pace.urgent_per_s(now_ms),
                stalled_s=pace.stalled_s(now_ms, self._table.oldest_age_ms(queue)),
                model=pace.model,
                returning=pace.refuse(refused, now_ms),
            )

    # --- the worker's side

    def lease(self, owner: str, task_ids: Sequence[str]) -> Leases:
        with self._step():
            return Leases(tuple(self._table.lease(owner, self._table.find(task_id)) for task_id in task_ids), self._table.now_ms)

    def renew(self, owner: str, task_ids: Sequence[str]) -> list[bool]:
        with self._step():
            tasks = [self._table.owned(owner, task_id) for task_id in task_ids]
            for task in filter(None, tasks):
                self._table.extend(task, owner)
            return [task is not None for task in tasks]

    def start(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        with self._step():
            return [self._table.start(owner, task_id) for task_id in task_ids]

    def commit(self, owner: str, commits: Sequence[Commit]) -> list[bool]:
        with self._step():
            written = [self._table.commit(owner, commit) for commit in commits]
            self._table.note_paces()
            return written

    def commit_and_start(
        self, owner: str, commits: Sequence[Commit], task_ids: Sequence[str]
    ) -> tuple[list[bool], list[int | None]]:
        return self.commit(owner, commits), self.start(owner, task_ids)

    def release(self, owner: str, task_ids: Sequence[str]) -> None:
        with self._step():
            for task in filter(None, (self._table.owned(owner, task_id) for task_id in task_ids)):
                self._table.wait_again(task)

    def note_death(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        with self._step():
            deaths: list[int | None] = []
            for task_id in task_ids:
                task = self._table.owned(owner, task_id)
                if task is None or task.status is not TaskStatus.RUNNING:
                    deaths.append(None)
                    continue
                self._table.count_death(task)
                task.alone = True
                self._table.extend(task, owner)
                deaths.append(task.deaths)
            return deaths

    # --- maintenance

    def expire_due(self, limit: int) -> list[str]:
        with self._step():
            due = [task for task in self._table.open() if task.deadline_at_ms <= self._table.now_ms]
            due = sorted(due, key=lambda task: task.deadline_at_ms)[:limit]
            for task in due:
                self._table.finish(task, Outcome.of_error(TaskStatus.EXPIRED, DeadlineExceeded("the deadline passed")))
            return [task.request.task_id for task in due]

    def reap(self, owner: str, *, max_attempts: int, limit: int) -> Reaped:
        with self._step():
            lost = [task for task in self._table.open() if task.leased_until_ms is not None and not self._table.is_leased(task)]
            requeue: list[str] = []
            exhausted: list[str] = []
            for task in sorted(lost, key=lambda task: task.leased_until_ms or 0)[:limit]:
                (requeue if self._table.reap(task, owner, max_attempts) else exhausted).append(task.request.task_id)
            return Reaped(tuple(requeue), tuple(exhausted))

    def started_watermarks(self, queue: str) -> dict[int, int]:
        with self._step():
            return dict(self._table.started[queue])

    def find_lost(self, queue: str, *, up_to: Mapping[int, int] | None, grace_s: float, limit: int) -> list[str]:
        with self._step():
            lost = []
            place = (queue, up_to is None)
            found = [task for task in self._table.waiting(queue) if task.number > self._looked_to[place]][:limit]
            self._looked_to[place] = found[-1].number if len(found) == limit else 0
            for task in found:
                if not _counts(task, up_to):
                    continue
                queued_at_ms = task.requeued_at_ms or task.created_at_ms
                if not self._table.is_leased(task) and queued_at_ms + grace_s * 1000 <= self._table.now_ms:
                    task.requeued_at_ms = self._table.now_ms
                    lost.append(task.request.task_id)
            return lost

    def forget_gone(self, queue: str, *, limit: int) -> int:
        """None: its figures are counted from the records."""
        del queue, limit
        with self._step():
            return 0

    def dead_letters(self, limit: int) -> list[str]:
        with self._step():
            return self._table.dead_letters[:limit]

    def count_dead_letters(self) -> int:
        with self._step():
            return len(self._table.dead_letters)

    def is_dead_letter(self, task_id: str) -> bool:
        with self._step():
            return task_id in self._table.dead_letters

    def discard_dead_letter(self, task_id: str) -> bool:
        with self._step():
            if task_id not in self._table.dead_letters:
                return False
            self._table.dead_letters.remove(task_id)
            task = self._table.kept(task_id)
            for sink in task.refusing:
                task.deliveries[sink] = "discarded"
            self._table.let_expire_if_done(task)
            return True

    def delivered(self, sink: str, entries: Sequence[tuple[bytes, str]]) -> None:
        with self._step():
            for entry_id, task_id in entries:
                self.outbox[sink].pop(entry_id, None)
                task = self._table.find(task_id)
                if task is not None and task.deliveries.get(sink) == "pending":
                    task.deliveries[sink] = "delivered"
                    self._table.let_expire_if_done(task)

    def refused(self, sink: str, entries: Sequence[tuple[bytes, str, str]]) -> None:
        with self._step():
            for entry_id, task_id, reason in entries:
                self.outbox[sink].pop(entry_id, None)
                task = self._table.find(task_id)
                if task is not None and task.deliveries.get(sink) == "pending":
                    task.deliveries[sink] = "refused"
                    task.refusals[sink] = reason
                    self._table.dead_letters.append(task_id)

    def deliver_again(self, task_id: str) -> int:
        with self._step():
            task = self._table.kept(task_id)
            refusing = task.refusing
            for sink in refusing:
                del task.refusals[sink]
                task.deliveries[sink] = "pending"
                self.outbox[sink][f"{self._table.now_ms}-{task.number}".encode()] = task_id
            if refusing:
                self._table.dead_letters.remove(task_id)
            return len(refusing)

    def ping(self) -> None:
        with self._step():
            pass

    # --- for tests

    def expires_in_s(self, task_id: str) -> float | None:
        """Seconds until the record is forgotten; None while it is kept."""
        expires_at_ms = self._table.kept(task_id).expires_at_ms
        return None if expires_at_ms is None else (expires_at_ms - self._table.now_ms) / 1000

    # --- inside

    @contextmanager
    def _step(self) -> Iterator[None]:
        """One step that nothing else comes between."""
        if not self.available:
            raise ServiceUnavailable("the task store does not answer", retry_after_s=1)
        with self._lock:
            yield

    def _known(self, key: str, fingerprint: str) -> KnownKey | None:
        known = self.find_idempotent(key)
        if known is not None and known.fingerprint != fingerprint:
            raise known.conflict()
        return known

    def _note_key(self, key: str, known: KnownKey) -> None:
        if key:
            self._idempotency[key] = (known, self._table.now_ms + round(self._policy.idempotency_ttl_s * 1000))


def _counts(task: FakeTask, up_to: Mapping[int, int] | None) -> bool:
    return up_to is None or task.number <= up_to.get(task.request.priority, 0)
