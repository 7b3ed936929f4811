"""The tasks of the fake task store, and what may happen to one. The caller sees that nothing else comes between."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from support.fake_clock import FakeClock
from support.fake_pace import FakePace
from support.fake_task import FakeTask

from inference.errors import Overloaded, TaskCanceled
from inference.messages import Outcome, PredictionRequest, TaskStatus, encode_outcome
from inference.task_store import Commit, Lease, LeaseState, Room
from inference.task_store.redis_store import StorePolicy


class FakeTaskTable:
    """All tasks, and what their ends leave behind."""

    def __init__(self, clock: FakeClock, policy: StorePolicy) -> None:
        #: by sink: entry id and task id, in order of the commits
        self.outbox: dict[str, dict[bytes, str]] = defaultdict(dict)
        #: (channel, frames), as they were published
        self.replies: list[tuple[str, bytes]] = []
        self.by_request: dict[str, list[str]] = defaultdict(list)
        #: by queue and priority: the number of the newest task that was started
        self.started: dict[str, dict[int, int]] = defaultdict(dict)
        self.paces: dict[str, FakePace] = defaultdict(FakePace)
        self.dead_letters: list[str] = []
        self._clock = clock
        self._policy = policy
        self._tasks: dict[str, FakeTask] = {}
        self._number = 0
        #: of the commit under way, by queue
        self._ran: dict[str, list[FakeTask]] = defaultdict(list)

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms

    def find(self, task_id: str) -> FakeTask | None:
        task = self._tasks.get(task_id)
        if task is not None and task.expires_at_ms is not None and task.expires_at_ms <= self.now_ms:
            del self._tasks[task_id]
            return None
        return task

    def kept(self, task_id: str) -> FakeTask:
        """One that must be there."""
        return self._tasks[task_id]

    def owned(self, owner: str, task_id: str) -> FakeTask | None:
        task = self.find(task_id)
        return task if task is not None and task.owner == owner else None

    def open(self) -> list[FakeTask]:
        return [task for task in self._tasks.values() if not task.status.is_terminal]

    def waiting(self, queue: str) -> list[FakeTask]:
        waiting = [task for task in self.open() if task.status is TaskStatus.QUEUED and task.request.queue == queue]
        return sorted(waiting, key=lambda task: task.number)

    def count_running(self, queue: str) -> int:
        return sum(task.status is TaskStatus.RUNNING and task.request.queue == queue for task in self.open())

    def oldest_age_ms(self, queue: str) -> int:
        """Age of the oldest that waits; 0 where none does."""
        waiting = self.waiting(queue)
        return self.now_ms - waiting[0].created_at_ms if waiting else 0

    def check_room(self, requests: Sequence[PredictionRequest], max_queue_depth: int, rooms: Mapping[str, Room]) -> None:
        """Raises Overloaded."""
        coming = Counter(request.queue for request in requests)
        for queue, count in coming.items():
            room, priority = rooms.get(queue), min(request.priority for request in requests if request.queue == queue)
            if not max_queue_depth and room is None:
                continue
            waiting = self.waiting(queue)
            if 0 < max_queue_depth < len(waiting) + count:
                raise Overloaded(f"no more than {max_queue_depth} tasks may wait for {queue}")
            if room is None:
                continue
            before = len(waiting)
            if priority:
                before = min(before, room.window + sum(task.request.priority >= priority for task in waiting))
            ahead = before + self.count_running(queue)
            if ahead and ahead + count > room.tasks:
                raise Overloaded(f"too many tasks of {queue} go before to end in time")

    def is_leased(self, task: FakeTask) -> bool:
        return task.leased_until_ms is not None and task.leased_until_ms > self.now_ms

    def add(self, request: PredictionRequest) -> None:
        self._number += 1
        deadline_at_ms = self.now_ms + round(request.deadline_s * 1000)
        self._tasks[request.task_id] = FakeTask(request, self._number, self.now_ms, deadline_at_ms)
        self.by_request[request.request_id].append(request.task_id)

    def remove(self, task_ids: Sequence[str]) -> bool:
        """All of them, or none where one is not waiting any more; those that are not there are removed already."""
        tasks = [task for task in map(self.find, task_ids) if task is not None]
        if not all(task.status is TaskStatus.QUEUED for task in tasks):
            return False
        for task in tasks:
            del self._tasks[task.request.task_id]
            self.by_request[task.request.request_id].remove(task.request.task_id)
        return True

    def cancel(self, task_id: str) -> bool:
        task = self.find(task_id)
        if task is None or task.status.is_terminal:
            return False
        self.finish(task, Outcome.of_error(TaskStatus.CANCELED, TaskCanceled("the task was canceled")))
        return True

    def lease(self, owner: str, task: FakeTask | None) -> Lease:
        if task is None:
            return Lease(LeaseState.UNKNOWN)
        is_others = task.owner not in (None, owner) and (self.is_leased(task) or task.status is TaskStatus.RUNNING)
        if task.status.is_terminal:
            state = LeaseState.FINISHED
        elif is_others:
            state = LeaseState.HELD
        else:
            state = LeaseState.LEASED
            self.extend(task, owner)
        image = task.request.image if state is LeaseState.LEASED else b""
        return Lease(state, task.alone, task.attempts, task.created_at_ms, task.deadline_at_ms, image)

    def extend(self, task: FakeTask, owner: str) -> None:
        task.owner = owner
        task.leased_until_ms = self.now_ms + round(self._policy.lease_s * 1000)

    def start(self, owner: str, task_id: str) -> int | None:
        task = self.owned(owner, task_id)
        if task is None or task.status.is_terminal or task.deadline_at_ms <= self.now_ms:
            return None
        task.attempts += 1
        task.status, task.started_at_ms = TaskStatus.RUNNING, self.now_ms
        self.extend(task, owner)
        started = self.started[task.request.queue]
        started[task.request.priority] = max(started.get(task.request.priority, 0), task.number)
        return task.attempts

    def commit(self, owner: str, commit: Commit) -> bool:
        task = self.owned(owner, commit.task_id)
        if task is None or task.status.is_terminal or task.attempts != commit.attempt:
            return False
        ran = task.status is TaskStatus.RUNNING
        self.finish(task, commit.outcome, keep=commit.dead_letter)
        if commit.dead_letter:
            self.dead_letters.append(commit.task_id)
        if ran and commit.outcome.status is not TaskStatus.EXPIRED:
            self._ran[task.request.queue].append(task)
        return True

    def note_paces(self) -> None:
        """After the last one of a commit."""
        for queue, tasks in self._ran.items():
            self.paces[queue].note(tasks, self.now_ms)
        self._ran.clear()

    def finish(self, task: FakeTask, outcome: Outcome, *, keep: bool = False) -> None:
        task.status, task.finished_at_ms, task.outcome = outcome.status, self.now_ms, encode_outcome(outcome)
        task.owner = task.leased_until_ms = None
        sinks = task.request.sinks if outcome.status is TaskStatus.SUCCEEDED else ()
        for sink in sinks:
            task.deliveries[sink] = "pending"
            self.outbox[sink][f"{self.now_ms}-{task.number}".encode()] = task.request.task_id
        if not keep:
            self.let_expire_if_done(task)
        if task.request.reply_to:
            head = struct.pack(">IQ", len(task.request.task_id), self.now_ms) + task.request.task_id.encode()
            self.replies.append((task.request.reply_to, head + struct.pack(">I", len(task.outcome)) + task.outcome))

    def let_expire_if_done(self, task: FakeTask) -> None:
        """Where no sink is still to get it."""
        if set(task.deliveries.values()) <= {"delivered", "discarded"}:
            task.expires_at_ms = self.now_ms + round(self._policy.result_ttl_s * 1000)

    def wait_again(self, task: FakeTask) -> None:
        task.owner = task.leased_until_ms = None
        task.status, task.requeued_at_ms = TaskStatus.QUEUED, self.now_ms

    def count_death(self, task: FakeTask) -> None:
        if task.dead_attempt != task.attempts:
            task.dead_attempt = task.attempts
            task.deaths += 1

    def reap(self, task: FakeTask, owner: str, max_attempts: int) -> bool:
        """True: to be queued again; False: out of attempts."""
        if task.status is TaskStatus.RUNNING:
            self.count_death(task)
            if task.deaths >= max_attempts:
                self.extend(task, owner)
                return False
            task.alone = True
        else:
            task.losses += 1
            task.alone = task.alone or task.losses > 1
        self.wait_again(task)
        return True
