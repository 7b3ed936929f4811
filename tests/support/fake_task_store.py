"""The whole task store in memory: what the contract suite says of a store, in the plainest way.

Held to the same contract as the store on Redis (`tests/contract/test_task_store_contract.py`), so that tests of what stands on a
store may use it in its place.
"""

from __future__ import annotations

import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from support.fake_clock import FakeClock
from support.fake_task import FakeTask

from inference.errors import (
    BatchNotFound,
    DeadlineExceeded,
    Overloaded,
    ServiceUnavailable,
    TaskAlreadyFinished,
    TaskCanceled,
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
    encode_outcome,
)
from inference.task_store import (
    Accepted,
    AcceptedBatch,
    Commit,
    Enqueue,
    KnownKey,
    Lease,
    Leases,
    LeaseState,
    QueueStats,
    Reaped,
    StateChanged,
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
        #: by sink: entry id and task id, in order of the commits
        self.outbox: dict[str, dict[bytes, str]] = defaultdict(dict)
        #: of the desired state
        self.revision = 0
        #: (channel, frames), as they were published
        self.replies: list[tuple[str, bytes]] = []
        self._policy = policy or StorePolicy()
        self._on_enqueue = on_enqueue
        self._lock = threading.RLock()
        self._tasks: dict[str, FakeTask] = {}
        self._by_request: dict[str, list[str]] = defaultdict(list)
        self._batches: dict[str, BatchRequest] = {}
        #: by key: what it stands for, until when
        self._idempotency: dict[str, tuple[KnownKey, int]] = {}
        self._started: dict[str, dict[int, int]] = defaultdict(dict)
        self._finished_at_ms: dict[str, list[int]] = defaultdict(list)
        self._dead_letters: list[str] = []
        self._number = 0

    # --- the API's side

    def accept(self, request: PredictionRequest, *, enqueue: Enqueue | None, max_queue_depth: int) -> Accepted:
        with self._step():
            if self._find(request.task_id):
                return Accepted(request.task_id, created=True)
            known = self._known(request.idempotency_key, request.fingerprint)
            if known is not None:
                return Accepted(known.task_id or "", created=False)
            self._check_revision([request])
            self._check_room([request], max_queue_depth)
            self._write(request)
            self._note_key(request.idempotency_key, KnownKey(request.fingerprint, task_id=request.task_id))
            if enqueue is not None:
                self._on_enqueue(enqueue)
            return Accepted(request.task_id, created=True)

    def accept_batch(self, batch: BatchRequest, *, enqueue: Sequence[Enqueue], max_queue_depth: int) -> AcceptedBatch:
        with self._step():
            if batch.batch_id in self._batches:
                return AcceptedBatch(batch.batch_id, created=True)
            known = self._known(batch.idempotency_key, batch.fingerprint)
            if known is not None:
                return AcceptedBatch(known.batch_id or "", created=False)
            self._check_revision(batch.tasks)
            self._check_room(batch.tasks, max_queue_depth)
            for request in batch.tasks:
                self._write(request)
            self._batches[batch.batch_id] = batch
            self._note_key(batch.idempotency_key, KnownKey(batch.fingerprint, batch_id=batch.batch_id))
            for message in enqueue:
                self._on_enqueue(message)
            return AcceptedBatch(batch.batch_id, created=True)

    def withdraw(self, task_id: str) -> bool:
        with self._step():
            return self._withdraw([task_id])

    def withdraw_batch(self, batch_id: str) -> bool:
        with self._step():
            is_gone = self._withdraw(self.get_batch(batch_id).task_ids)
            if is_gone:
                del self._batches[batch_id]
            return is_gone

    def get_batch(self, batch_id: str) -> BatchRecord:
        with self._step():
            batch = self._batches.get(batch_id)
            if batch is None or (batch.tasks and not any(self._find(task.task_id) for task in batch.tasks)):
                raise BatchNotFound(f"there is no batch {batch_id}", batch_id=batch_id)
            return batch.record

    def get(self, task_id: str) -> TaskRecord:
        record = self.get_many([task_id])[0]
        if record is None:
            raise TaskNotFound(f"there is no task {task_id}", task_id=task_id)
        return record

    def image(self, task_id: str) -> bytes:
        with self._step():
            task = self._find(task_id)
            return task.request.image if task and not task.status.is_terminal else b""

    def get_many(self, task_ids: Sequence[str]) -> list[TaskRecord | None]:
        with self._step():
            found = (self._find(task_id) for task_id in task_ids)
            return [task.record() if task else None for task in found]

    def get_ended(self, task_ids: Sequence[str]) -> list[EndedTask | None]:
        return [
            EndedTask(one.outcome, one.finished_at_ms, one.task_id, one.request_id, one.created_at_ms)
            if one is not None and one.outcome is not None
            else None
            for one in self.get_many(task_ids)
        ]

    def find_by_request(self, request_id: str) -> list[str]:
        with self._step():
            return list(self._by_request[request_id])

    def find_idempotent(self, key: str) -> KnownKey | None:
        with self._step():
            known, until_ms = self._idempotency.get(key, (KnownKey(""), 0))
            is_there = known.batch_id in self._batches or self._find(known.task_id or "")
            return known if until_ms > self._now_ms and is_there else None

    def cancel(self, task_id: str) -> TaskRecord:
        with self._step():
            task = self._find(task_id)
            if task is None:
                raise TaskNotFound(f"there is no task {task_id}", task_id=task_id)
            if task.status.is_terminal:
                raise TaskAlreadyFinished(f"the task has ended already: {task.status}", task_id=task_id)
            self._cancel(task_id)
            return task.record()

    def cancel_many(self, task_ids: Sequence[str]) -> list[bool]:
        with self._step():
            return [self._cancel(task_id) for task_id in task_ids]

    def position(self, queue: str, task_id: str) -> int | None:
        with self._step():
            waiting = [task.request.task_id for task in self._waiting(queue)]
            return waiting.index(task_id) if task_id in waiting else None

    def queue_stats(self, queue: str) -> QueueStats:
        with self._step():
            waiting = self._waiting(queue)
            oldest_age_ms = self._now_ms - waiting[0].created_at_ms if waiting else 0
            whole_seconds = min(10, oldest_age_ms // 1000)
            since_ms = (self._now_ms // 1000 - whole_seconds) * 1000
            ended = sum(at_ms >= since_ms for at_ms in self._finished_at_ms[queue])
            rate = ended * 1000 / (self._now_ms - since_ms) if whole_seconds else 0.0
            return QueueStats(len(waiting), oldest_age_ms / 1000, rate)

    def count_waiting(self, queue: str, *, up_to: int) -> int:
        with self._step():
            return sum(task.number <= up_to for task in self._waiting(queue))

    # --- the worker's side

    def lease(self, owner: str, task_ids: Sequence[str]) -> Leases:
        with self._step():
            return Leases(tuple(self._lease(owner, self._find(task_id)) for task_id in task_ids), self._now_ms)

    def renew(self, owner: str, task_ids: Sequence[str]) -> list[bool]:
        with self._step():
            tasks = [self._owned(owner, task_id) for task_id in task_ids]
            for task in filter(None, tasks):
                self._extend(task, owner)
            return [task is not None for task in tasks]

    def start(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        with self._step():
            return [self._start(owner, task_id) for task_id in task_ids]

    def commit(self, owner: str, commits: Sequence[Commit]) -> list[bool]:
        with self._step():
            return [self._commit(owner, commit) for commit in commits]

    def commit_and_start(
        self, owner: str, commits: Sequence[Commit], task_ids: Sequence[str]
    ) -> tuple[list[bool], list[int | None]]:
        return self.commit(owner, commits), self.start(owner, task_ids)

    def release(self, owner: str, task_ids: Sequence[str]) -> None:
        with self._step():
            for task in filter(None, (self._owned(owner, task_id) for task_id in task_ids)):
                self._wait_again(task)

    def note_death(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        with self._step():
            deaths: list[int | None] = []
            for task_id in task_ids:
                task = self._owned(owner, task_id)
                if task is None or task.status is not TaskStatus.RUNNING:
                    deaths.append(None)
                    continue
                self._count_death(task)
                task.alone = True
                self._extend(task, owner)
                deaths.append(task.deaths)
            return deaths

    # --- maintenance

    def expire_due(self, limit: int) -> list[str]:
        with self._step():
            due = [task for task in self._open() if task.deadline_at_ms <= self._now_ms]
            due = sorted(due, key=lambda task: task.deadline_at_ms)[:limit]
            for task in due:
                self._finish(task, Outcome.of_error(TaskStatus.EXPIRED, DeadlineExceeded("the deadline passed")))
            return [task.request.task_id for task in due]

    def reap(self, owner: str, *, max_attempts: int, limit: int) -> Reaped:
        with self._step():
            lost = [task for task in self._open() if task.leased_until_ms is not None and not self._is_leased(task)]
            requeue: list[str] = []
            exhausted: list[str] = []
            for task in sorted(lost, key=lambda task: task.leased_until_ms or 0)[:limit]:
                (requeue if self._reap(task, owner, max_attempts) else exhausted).append(task.request.task_id)
            return Reaped(tuple(requeue), tuple(exhausted))

    def started_watermarks(self, queue: str) -> dict[int, int]:
        with self._step():
            return dict(self._started[queue])

    def find_lost(self, queue: str, *, up_to: Mapping[int, int] | None, grace_s: float, limit: int) -> list[str]:
        with self._step():
            lost = []
            for task in [task for task in self._waiting(queue) if _counts(task, up_to)][:limit]:
                queued_at_ms = task.requeued_at_ms or task.created_at_ms
                if not self._is_leased(task) and queued_at_ms + grace_s * 1000 <= self._now_ms:
                    task.requeued_at_ms = self._now_ms
                    lost.append(task.request.task_id)
            return lost

    def dead_letters(self, limit: int) -> list[str]:
        with self._step():
            return self._dead_letters[:limit]

    def count_dead_letters(self) -> int:
        with self._step():
            return len(self._dead_letters)

    def is_dead_letter(self, task_id: str) -> bool:
        with self._step():
            return task_id in self._dead_letters

    def discard_dead_letter(self, task_id: str) -> bool:
        with self._step():
            if task_id not in self._dead_letters:
                return False
            self._dead_letters.remove(task_id)
            task = self._tasks[task_id]
            for sink in task.refusing:
                task.deliveries[sink] = "discarded"
            self._let_expire_if_done(task)
            return True

    def delivered(self, sink: str, entries: Sequence[tuple[bytes, str]]) -> None:
        with self._step():
            for entry_id, task_id in entries:
                self.outbox[sink].pop(entry_id, None)
                task = self._find(task_id)
                if task is not None and task.deliveries.get(sink) == "pending":
                    task.deliveries[sink] = "delivered"
                    self._let_expire_if_done(task)

    def refused(self, sink: str, entries: Sequence[tuple[bytes, str, str]]) -> None:
        with self._step():
            for entry_id, task_id, reason in entries:
                self.outbox[sink].pop(entry_id, None)
                task = self._find(task_id)
                if task is not None and task.deliveries.get(sink) == "pending":
                    task.deliveries[sink] = "refused"
                    task.refusals[sink] = reason
                    self._dead_letters.append(task_id)

    def deliver_again(self, task_id: str) -> int:
        with self._step():
            task = self._tasks[task_id]
            refusing = task.refusing
            for sink in refusing:
                del task.refusals[sink]
                task.deliveries[sink] = "pending"
                self.outbox[sink][f"{self._now_ms}-{task.number}".encode()] = task_id
            if refusing:
                self._dead_letters.remove(task_id)
            return len(refusing)

    def ping(self) -> None:
        with self._step():
            pass

    # --- for tests

    def expires_in_s(self, task_id: str) -> float | None:
        """Seconds until the record is forgotten; None while it is kept."""
        expires_at_ms = self._tasks[task_id].expires_at_ms
        return None if expires_at_ms is None else (expires_at_ms - self._now_ms) / 1000

    # --- inside

    @contextmanager
    def _step(self) -> Iterator[None]:
        """One step that nothing else comes between."""
        if not self.available:
            raise ServiceUnavailable("the task store does not answer", retry_after_s=1)
        with self._lock:
            yield

    @property
    def _now_ms(self) -> int:
        return self.clock.now_ms

    def _find(self, task_id: str) -> FakeTask | None:
        task = self._tasks.get(task_id)
        if task is not None and task.expires_at_ms is not None and task.expires_at_ms <= self._now_ms:
            del self._tasks[task_id]
            return None
        return task

    def _owned(self, owner: str, task_id: str) -> FakeTask | None:
        task = self._find(task_id)
        return task if task is not None and task.owner == owner else None

    def _open(self) -> list[FakeTask]:
        return [task for task in self._tasks.values() if not task.status.is_terminal]

    def _waiting(self, queue: str) -> list[FakeTask]:
        waiting = [task for task in self._open() if task.status is TaskStatus.QUEUED and task.request.queue == queue]
        return sorted(waiting, key=lambda task: task.number)

    def _is_leased(self, task: FakeTask) -> bool:
        return task.leased_until_ms is not None and task.leased_until_ms > self._now_ms

    def _write(self, request: PredictionRequest) -> None:
        self._number += 1
        deadline_at_ms = self._now_ms + round(request.deadline_s * 1000)
        self._tasks[request.task_id] = FakeTask(request, self._number, self._now_ms, deadline_at_ms)
        self._by_request[request.request_id].append(request.task_id)

    def _known(self, key: str, fingerprint: str) -> KnownKey | None:
        known = self.find_idempotent(key)
        if known is not None and known.fingerprint != fingerprint:
            raise known.conflict()
        return known

    def _note_key(self, key: str, known: KnownKey) -> None:
        if key:
            self._idempotency[key] = (known, self._now_ms + round(self._policy.idempotency_ttl_s * 1000))

    def _check_revision(self, requests: Sequence[PredictionRequest]) -> None:
        if any(request.revision not in (None, self.revision) for request in requests):
            raise StateChanged

    def _check_room(self, requests: Sequence[PredictionRequest], max_queue_depth: int) -> None:
        coming = Counter(request.queue for request in requests)
        for queue, count in coming.items():
            if 0 < max_queue_depth < len(self._waiting(queue)) + count:
                raise Overloaded(f"no more than {max_queue_depth} tasks may wait for {queue}")

    def _withdraw(self, task_ids: Sequence[str]) -> bool:
        tasks = [self._find(task_id) for task_id in task_ids]
        if not all(task is not None and task.status is TaskStatus.QUEUED for task in tasks):
            return False
        for task in filter(None, tasks):
            del self._tasks[task.request.task_id]
            self._by_request[task.request.request_id].remove(task.request.task_id)
        return True

    def _cancel(self, task_id: str) -> bool:
        task = self._find(task_id)
        if task is None or task.status.is_terminal:
            return False
        self._finish(task, Outcome.of_error(TaskStatus.CANCELED, TaskCanceled("the task was canceled")))
        return True

    def _lease(self, owner: str, task: FakeTask | None) -> Lease:
        if task is None:
            return Lease(LeaseState.UNKNOWN)
        is_others = task.owner not in (None, owner) and (self._is_leased(task) or task.status is TaskStatus.RUNNING)
        if task.status.is_terminal:
            state = LeaseState.FINISHED
        elif is_others:
            state = LeaseState.HELD
        else:
            state = LeaseState.LEASED
            self._extend(task, owner)
        image = task.request.image if state is LeaseState.LEASED else b""
        return Lease(state, task.alone, task.attempts, task.created_at_ms, task.deadline_at_ms, image)

    def _extend(self, task: FakeTask, owner: str) -> None:
        task.owner = owner
        task.leased_until_ms = self._now_ms + round(self._policy.lease_s * 1000)

    def _start(self, owner: str, task_id: str) -> int | None:
        task = self._owned(owner, task_id)
        if task is None or task.status.is_terminal or task.deadline_at_ms <= self._now_ms:
            return None
        task.attempts += 1
        task.status, task.started_at_ms = TaskStatus.RUNNING, self._now_ms
        self._extend(task, owner)
        started = self._started[task.request.queue]
        started[task.request.priority] = max(started.get(task.request.priority, 0), task.number)
        return task.attempts

    def _commit(self, owner: str, commit: Commit) -> bool:
        task = self._owned(owner, commit.task_id)
        if task is None or task.status.is_terminal or task.attempts != commit.attempt:
            return False
        self._finish(task, commit.outcome, keep=commit.dead_letter)
        if commit.dead_letter:
            self._dead_letters.append(commit.task_id)
        self._finished_at_ms[task.request.queue].append(self._now_ms)
        return True

    def _finish(self, task: FakeTask, outcome: Outcome, *, keep: bool = False) -> None:
        task.status, task.finished_at_ms, task.outcome = outcome.status, self._now_ms, encode_outcome(outcome)
        task.owner = task.leased_until_ms = None
        sinks = task.request.sinks if outcome.status is TaskStatus.SUCCEEDED else ()
        for sink in sinks:
            task.deliveries[sink] = "pending"
            self.outbox[sink][f"{self._now_ms}-{task.number}".encode()] = task.request.task_id
        if not keep:
            self._let_expire_if_done(task)
        if task.request.reply_to:
            head = struct.pack(">IQ", len(task.request.task_id), self._now_ms) + task.request.task_id.encode()
            self.replies.append((task.request.reply_to, head + struct.pack(">I", len(task.outcome)) + task.outcome))

    def _let_expire_if_done(self, task: FakeTask) -> None:
        """Where no sink is still to get it."""
        if set(task.deliveries.values()) <= {"delivered", "discarded"}:
            task.expires_at_ms = self._now_ms + round(self._policy.result_ttl_s * 1000)

    def _wait_again(self, task: FakeTask) -> None:
        task.owner = task.leased_until_ms = None
        task.status, task.requeued_at_ms = TaskStatus.QUEUED, self._now_ms

    def _count_death(self, task: FakeTask) -> None:
        if task.dead_attempt != task.attempts:
            task.dead_attempt = task.attempts
            task.deaths += 1

    def _reap(self, task: FakeTask, owner: str, max_attempts: int) -> bool:
        """True: to be queued again; False: out of attempts."""
        if task.status is TaskStatus.RUNNING:
            self._count_death(task)
            if task.deaths >= max_attempts:
                self._extend(task, owner)
                return False
            task.alone = True
        else:
            task.losses += 1
            task.alone = task.alone or task.losses > 1
        self._wait_again(task)
        return True


def _counts(task: FakeTask, up_to: Mapping[int, int] | None) -> bool:
    return up_to is None or task.number <= up_to.get(task.request.priority, 0)
