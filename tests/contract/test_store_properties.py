"""Promises that hold in any order of calls: random walks through the transitions of a task, on a real server."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from store_worlds import ALL, LEASE_S, StoreWorld, accept
from support.samples import QUEUE, a_failure, a_success

from inference.domain import TaskStatus
from inference.errors import TaskAlreadyFinished
from inference.task_store import Commit, LeaseState

DEADLINE_S = 60.0
OWNERS = st.sampled_from(["worker-a", "worker-b"])
MAX_TASKS = 3
TASK_OWNERS = ("lab", "shop")
NUMBER = st.integers(min_value=0, max_value=MAX_TASKS - 1)
OPEN = {TaskStatus.QUEUED, TaskStatus.RUNNING}


@dataclass
class _Known:
    """Facts about one task that the calls so far have established."""

    owner: str
    #: its end, by the one call that was told to have brought it
    end: TaskStatus | None = None
    attempt: int = 0
    #: worker that has it, and when its lease began or was renewed last
    holder: str | None = None
    leased_at: float = 0.0


class StoreWalk(RuleBasedStateMachine):
    """Workers, callers and the sweeper in any order; time passes in between."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.world = StoreWorld(client, f"test-{uuid.uuid4().hex[:12]}", has_turns=True)
        self.store = self.world.store
        self.tasks: dict[str, _Known] = {}
        self.passed_s = 0.0

    def _now(self) -> float:
        return time.monotonic() + self.passed_s

    def _task(self, number: int) -> str:
        return list(self.tasks)[number % len(self.tasks)]

    def _ends(self, task_id: str, status: TaskStatus) -> None:
        known = self.tasks[task_id]
        assert known.end is None, f"{known.end} and then {status}"
        known.end, known.holder = status, None

    @rule(has_sink=st.booleans(), owner=st.sampled_from(["", *TASK_OWNERS]))
    def accept(self, has_sink: bool, owner: str) -> None:
        if len(self.tasks) < MAX_TASKS:
            sinks = ("jsonl",) if has_sink else ()
            self.tasks[accept(self.store, deadline_s=DEADLINE_S, sinks=sinks, owner=owner)] = _Known(owner)

    def _takes(self, holder: str, known: _Known, since: float) -> None:
        if known.holder not in (None, holder):
            assert self._now() - known.leased_at >= LEASE_S, (
                f"{holder} gets it, though the lease of {known.holder} has not run out"
            )
        known.holder, known.leased_at = holder, since

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def lease(self, holder: str, number: int) -> None:
        task_id = self._task(number)
        known = self.tasks[task_id]
        began = self._now()
        lease = self.store.lease(holder, [task_id]).leases[0]
        assert (lease.state is LeaseState.FINISHED) == (known.end is not None)
        if lease.state is LeaseState.LEASED:
            self._takes(holder, known, began)

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def start(self, holder: str, number: int) -> None:
        task_id = self._task(number)
        known = self.tasks[task_id]
        began = self._now()
        attempt = self.store.start(holder, [task_id])[0]
        if attempt is not None:
            assert known.end is None
            assert attempt == known.attempt + 1
            assert known.holder == holder
            known.attempt, known.leased_at = attempt, began

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def run(self, holder: str, number: int) -> None:
        self.lease(holder, number)
        self.start(holder, number)

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER, back=st.integers(0, 1), succeeds=st.booleans(), dead_letter=st.booleans())
    def commit(self, holder: str, number: int, back: int, succeeds: bool, dead_letter: bool) -> None:
        task_id = self._task(number)
        known = self.tasks[task_id]
        outcome = a_success() if succeeds else a_failure()
        attempt = known.attempt - back
        if self.store.commit(holder, [Commit(task_id, attempt, outcome, dead_letter=dead_letter and not succeeds)])[0]:
            assert attempt == known.attempt, "an attempt that is not the last one committed"
            assert known.holder == holder
            self._ends(task_id, outcome.status)

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def renew(self, holder: str, number: int) -> None:
        task_id = self._task(number)
        known = self.tasks[task_id]
        began = self._now()
        if self.store.renew(holder, [task_id])[0] and known.holder == holder:
            known.leased_at = began

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def release(self, holder: str, number: int) -> None:
        task_id = self._task(number)
        self.store.release(holder, [task_id])
        if self.tasks[task_id].holder == holder:
            self.tasks[task_id].holder = None

    @precondition(lambda self: self.tasks)
    @rule(holder=OWNERS, number=NUMBER)
    def note_death(self, holder: str, number: int) -> None:
        self.store.note_death(holder, [self._task(number)])

    @precondition(lambda self: self.tasks)
    @rule(number=NUMBER)
    def cancel(self, number: int) -> None:
        task_id = self._task(number)
        try:
            self.store.cancel(task_id)
        except TaskAlreadyFinished:
            assert self.tasks[task_id].end is not None
        else:
            self._ends(task_id, TaskStatus.CANCELED)

    @precondition(lambda self: self.tasks)
    @rule(number=NUMBER)
    def withdraw(self, number: int) -> None:
        task_id = self._task(number)
        if self.store.withdraw(task_id):
            assert self.tasks.pop(task_id).end is None

    @rule()
    def reap(self) -> None:
        reaped = self.store.reap("sweeper", max_attempts=3, limit=ALL)
        for task_id in reaped.requeue + reaped.exhausted:
            known = self.tasks[task_id]
            assert known.holder is None or self._now() - known.leased_at >= LEASE_S
            known.holder = "sweeper" if task_id in reaped.exhausted else None
            known.leased_at = self._now()

    @rule()
    def expire(self) -> None:
        for task_id in self.store.expire_due(ALL):
            self._ends(task_id, TaskStatus.EXPIRED)

    @rule(seconds=st.sampled_from([4.0, LEASE_S + 1, DEADLINE_S / 2]))
    def let_pass(self, seconds: float) -> None:
        self.world.let_pass(seconds)
        self.passed_s += seconds

    @invariant()
    def records_say_how_tasks_ended(self) -> None:
        for (task_id, known), record in zip(self.tasks.items(), self.store.get_many(list(self.tasks)), strict=True):
            if record is None:  # the time to live of an ended one is over
                assert known.end is not None, task_id
            else:
                assert record.status in ({known.end} if known.end else OPEN), task_id

    @invariant()
    def queued_tasks_wait_and_no_others(self) -> None:
        records = self.store.get_many(list(self.tasks))
        queued = [record for record in records if record is not None and record.status is TaskStatus.QUEUED]
        assert self.store.get_queue_stats(QUEUE).depth == len(queued)

    @invariant()
    def counts_of_owners_are_those_of_their_tasks(self) -> None:
        records = self.store.get_many(list(self.tasks))
        queued = Counter(record.owner for record in records if record is not None and record.status is TaskStatus.QUEUED)
        assert dict(self.store.get_queue_load(QUEUE).shares) == {owner: queued[owner] for owner in TASK_OWNERS if queued[owner]}
        for owner in TASK_OWNERS:
            is_open = [known.end is None and known.owner == owner for known in self.tasks.values()]
            assert self.store.get_owner_use(owner).open_tasks == sum(is_open)

    @invariant()
    def outbox_has_each_result_once(self) -> None:
        delivered = [task_id for _, task_id in self.world.outbox("jsonl")]
        assert len(delivered) == len(set(delivered))
        assert all(self.tasks[task_id].end is TaskStatus.SUCCEEDED for task_id in delivered)

    def teardown(self) -> None:
        self.let_pass(DEADLINE_S + 1)
        self.expire()
        assert [task_id for task_id, known in self.tasks.items() if known.end is None] == []
        self.records_say_how_tasks_ended()
        self.queued_tasks_wait_and_no_others()
        self.counts_of_owners_are_those_of_their_tasks()
        assert [self.store.get_owner_use(owner).open_tasks for owner in TASK_OWNERS] == [0, 0]


def test_a_task_ends_once_and_runs_for_one_worker_at_a_time(redis_client: redis.Redis) -> None:
    run_state_machine_as_test(
        lambda: StoreWalk(redis_client),
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
