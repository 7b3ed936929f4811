"""Task store on Redis 6.2 or later: a Lua script for each transition (`lua/`), one prefix for all keys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import redis

from inference.access import NO_LIMITS, Limits, OwnerUse
from inference.domain import (
    BatchRecord,
    BatchRequest,
    CompletedTask,
    Outcome,
    TaskRecord,
    TaskStatus,
    TaskSubmission,
    encode_outcome,
)
from inference.errors import (
    BatchNotFound,
    DeadlineExceeded,
    IdempotencyConflict,
    Overloaded,
    TaskAlreadyFinished,
    TaskCanceled,
)
from inference.runtime.coalescing import CallCoalescer
from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import (
    Accepted,
    AcceptedBatch,
    Commit,
    Enqueue,
    KnownKey,
    Leases,
    Reaped,
    Room,
    TaskFilter,
    TaskPage,
    TaskState,
    no_batch,
    no_task,
)
from inference.task_store.quotas import limit_error, limits_field, use_from
from inference.task_store.records import (
    COMPLETED_FIELDS,
    batch_field,
    batch_from,
    completed_from,
    from_hash,
    lease_from,
    model_field,
    model_prefix,
    readable,
    state_from,
)
from inference.task_store.redis_erasures import RedisErasures
from inference.task_store.redis_owners import RedisOwners
from inference.task_store.redis_queues import RedisQueues
from inference.task_store.scripts import RELAY_GROUP, Scripts
from inference.task_store.submissions import SUBMISSION_WEIGHT, in_ms, message_arguments, task_arguments, weight

#: Tasks that a page of a list examines at most, those without a record included: 3 to 6 ms of the server's time.
_EXAMINED = 500
#: Above each acceptance number, and exact as a double, which is Lua's number.
_NEWEST = 2**53

#: Prefixes of a subject, which is the id of a task or batch with its kind.
_TASK, _BATCH = "task:", "batch:"


@dataclass(frozen=True)
class StorePolicy:
    """Prefix of the store's keys, and how long data is kept, in seconds."""

    key_prefix: str = "inference"
    lease_s: float = 10.0
    #: life of a record after its task has ended and every sink has its result
    result_ttl_s: float = 86_400.0
    idempotency_ttl_s: float = 86_400.0
    #: number of tasks that can be listed without a request id
    index_max: int = 100_000
    #: whether owners take turns in the broker's queues
    has_turns: bool = False


class RedisTaskStore(RedisErasures, RedisQueues, RedisOwners):
    """`TaskStore` on a Redis server. Safe to share between threads and greenlets."""

    def __init__(self, client: redis.Redis, policy: StorePolicy) -> None:
        super().__init__(client, Scripts(client, policy.key_prefix), policy.key_prefix, result_ttl_s=policy.result_ttl_s)
        self._policy = policy
        self._index_max = policy.index_max
        self._has_turns = policy.has_turns
        self._acceptances = CallCoalescer(self._accept_each, weigh=weight, max_weight=64 * SUBMISSION_WEIGHT)

    # --- submission

    def accept(
        self,
        request: TaskSubmission,
        *,
        enqueue: Enqueue | None,
        max_queue_depth: int,
        room: Room | None = None,
        limits: Limits = NO_LIMITS,
    ) -> Accepted:
        state, task_id, inline_bytes, use = self._accept(
            f"{_TASK}{request.task_id}",
            [request],
            [enqueue] if enqueue else [],
            owner=request.owner,
            limits=limits,
            max_queue_depth=max_queue_depth,
            rooms={} if room is None else {request.queue: room},
            key=request.idempotency_key,
            fingerprint=request.fingerprint,
        )
        return Accepted(task_id, created=state == b"accepted", inline_bytes=inline_bytes, use=use)

    def accept_batch(
        self,
        batch: BatchRequest,
        *,
        enqueue: Sequence[Enqueue],
        max_queue_depth: int,
        rooms: Mapping[str, Room] = MappingProxyType({}),
        limits: Limits = NO_LIMITS,
    ) -> AcceptedBatch:
        state, batch_id, inline_bytes, use = self._accept(
            f"{_BATCH}{batch.batch_id}",
            batch.tasks,
            enqueue,
            owner=batch.owner,
            limits=limits,
            max_queue_depth=max_queue_depth,
            rooms=rooms,
            key=batch.idempotency_key,
            fingerprint=batch.fingerprint,
            entries=batch_field(batch.record),
        )
        return AcceptedBatch(batch_id, created=state == b"accepted", inline_bytes=inline_bytes, use=use)

    def _accept(
        self,
        subject: str,
        requests: Sequence[TaskSubmission],
        enqueue: Sequence[Enqueue],
        *,
        owner: str,
        limits: Limits,
        max_queue_depth: int,
        rooms: Mapping[str, Room],
        key: str,
        fingerprint: str,
        entries: bytes = b"",
    ) -> tuple[bytes, str, int, OwnerUse | None]:
        """Accept tasks, or find the ones accepted before.

        Returns the state, the id of the task or batch, the bytes of all inline images, and the use of the owner if it has limits.
        """
        image_bytes = sum(request.image_bytes for request in requests)
        state, found, inline_bytes, *numbers = self._acceptances(
            [
                *(subject, owner, limits_field(limits) if owner else b"", image_bytes),
                *(max_queue_depth, in_ms(self._policy.result_ttl_s)),
                *(key, fingerprint, in_ms(self._policy.idempotency_ttl_s)),
                *(entries, len(enqueue)),
                *(part for message in enqueue for part in message_arguments(message)),
                *task_arguments(requests, rooms, has_turns=self._has_turns),
            ]
        )
        use = use_from(numbers) if numbers else None
        if use is not None and state == b"limited":
            raise limit_error(found.decode(), limits, use)
        if state in {b"overloaded", b"late"}:
            model = next(request.model.name for request in requests if request.queue == found.decode())
            raise _overloaded(state, model, max_queue_depth)
        if state == b"conflict":
            raise _known(found, b"").conflict()
        if state == b"taken":
            raise IdempotencyConflict("there is a task with this id already", field="task_id", expected="an id of your own")
        return state, found.decode().partition(":")[2], inline_bytes, use

    def _accept_each(self, submissions: Sequence[list[Any]]) -> Sequence[list[Any]]:
        """Accept concurrent submissions, each by itself, in one round trip and one sync of the server's log."""
        parts = (part for submission in submissions for part in (len(submission), *submission))
        answers: Sequence[list[Any]] = self._scripts.run("accept", self._policy.index_max, len(submissions), *parts)
        return answers

    def withdraw(self, task_id: str, *, image_bytes: int = 0) -> bool:
        return bool(self._scripts.run("withdraw", "", image_bytes, task_id))

    def withdraw_batch(self, batch_id: str, *, image_bytes: int = 0) -> bool:
        try:
            task_ids = self.get_batch(batch_id).task_ids
        except BatchNotFound:
            return True
        return bool(self._scripts.run("withdraw", batch_id, image_bytes, *task_ids))

    def get(self, task_id: str) -> TaskRecord:
        record = self.get_many([task_id])[0]
        if record is None:
            raise no_task(task_id)
        return record

    def get_many(self, task_ids: Sequence[str]) -> list[TaskRecord | None]:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hgetall(self._key("task", task_id))
            found = pipe.execute()
        # If a record expires between two commands of a script, a few fields are left; `item` is always written first.
        return [
            readable(from_hash, task_id, fields) if b"item" in fields else None
            for task_id, fields in zip(task_ids, found, strict=True)
        ]

    def get_completed(self, task_ids: Sequence[str]) -> list[CompletedTask | None]:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hmget(self._key("task", task_id), COMPLETED_FIELDS)
            found = pipe.execute()
        return [readable(completed_from, task_id, values) for task_id, values in zip(task_ids, found, strict=True)]

    def get_states(self, task_ids: Sequence[str]) -> list[TaskState | None]:
        found = self._scripts.run("get_states", *task_ids)
        return [
            readable(state_from, task_id, values) if values else None for task_id, values in zip(task_ids, found, strict=True)
        ]

    def get_image(self, task_id: str) -> bytes:
        with unavailable_when_down():
            found: Any = self._redis.get(self._key("image", task_id))
        return found or b""

    def get_batch(self, batch_id: str) -> BatchRecord:
        with unavailable_when_down():
            entries: Any = self._redis.get(self._key("batch", batch_id))
        batch = None if entries is None else readable(batch_from, batch_id, entries)
        if batch is None:
            raise no_batch(batch_id)
        return batch

    def list_tasks(self, wanted: TaskFilter, *, before: int | None = None, limit: int = 50) -> TaskPage:
        first = _NEWEST if before is None else min(before, _NEWEST)
        conditions = (wanted.owner, wanted.request_id, first, wanted.since_ms, model_prefix(wanted.model))
        next_before, ids = self._scripts.run("list_tasks", *conditions, limit, max(_EXAMINED, limit), *wanted.statuses)
        return TaskPage(tuple(_texts(ids)), int(next_before) or None)

    def find_idempotent(self, key: str, *, owner: str = "") -> KnownKey | None:
        scope = ("owner", owner) if owner else ()
        with unavailable_when_down():
            known: Any = self._redis.hmget(self._key(*scope, "idempotency", key), "subject", "fingerprint")
            if known[0] is None or not self._redis.exists(self._key(known[0].decode())):
                return None
        return _known(*known)

    def cancel(self, task_id: str) -> TaskRecord:
        (state,) = self._cancel([task_id])
        record = self.get(task_id)
        if state == b"finished":
            raise TaskAlreadyFinished(f"the task has ended already: {record.status}", task_id=task_id)
        return record

    def cancel_many(self, task_ids: Sequence[str]) -> list[bool]:
        return [state == b"canceled" for state in self._cancel(task_ids)]

    def _cancel(self, task_ids: Sequence[str]) -> list[bytes]:
        outcome = Outcome.of_error(TaskStatus.CANCELED, TaskCanceled("the task was canceled before it had a result"))
        call = secrets.token_hex(8)
        states: list[bytes] = self._scripts.run(
            "cancel", encode_outcome(outcome), in_ms(self._policy.result_ttl_s), call, *task_ids
        )
        return states

    # --- worker

    def lease(self, holder: str, task_ids: Sequence[str]) -> Leases:
        now_ms, *states = self._scripts.run("lease", holder, self._lease_ms, *task_ids)
        return Leases(tuple(map(lease_from, states)), int(now_ms))

    def renew(self, holder: str, task_ids: Sequence[str]) -> list[bool]:
        return _truths(self._scripts.run("renew", holder, self._lease_ms, *task_ids))

    def start(self, holder: str, task_ids: Sequence[str]) -> list[int | None]:
        return _attempts(self._scripts.run("start", *self._to_start(holder, task_ids)))

    def commit(self, holder: str, commits: Sequence[Commit]) -> list[bool]:
        return _truths(self._scripts.run("commit", *self._to_commit(holder, commits)))

    def commit_and_start(
        self, holder: str, commits: Sequence[Commit], task_ids: Sequence[str]
    ) -> tuple[list[bool], list[int | None]]:
        # One write to the server, so that it syncs its log once.
        written, attempts = self._scripts.run_pipelined(
            ("commit", self._to_commit(holder, commits)), ("start", self._to_start(holder, task_ids))
        )
        return _truths(written), _attempts(attempts)

    def _to_start(self, holder: str, task_ids: Sequence[str]) -> list[Any]:
        return [holder, self._lease_ms, *task_ids]

    def _to_commit(self, holder: str, commits: Sequence[Commit]) -> list[Any]:
        arguments: list[Any] = [holder, in_ms(self._policy.result_ttl_s)]
        for commit in commits:
            outcome = commit.outcome
            ran_on = model_field(outcome.model) if outcome.model else b""
            arguments += (commit.task_id, commit.attempt, outcome.status.value, int(commit.dead_letter), ran_on)
            arguments.append(encode_outcome(outcome))
        return arguments

    def release(self, holder: str, task_ids: Sequence[str]) -> None:
        self._scripts.run("release", holder, *task_ids)

    def note_death(self, holder: str, task_ids: Sequence[str]) -> list[int | None]:
        return [deaths or None for deaths in self._scripts.run("note_death", holder, self._lease_ms, *task_ids)]

    # --- delivery and maintenance

    def expire_due(self, limit: int) -> list[str]:
        outcome = Outcome.of_error(TaskStatus.EXPIRED, DeadlineExceeded("the task's deadline passed before it had a result"))
        return _texts(self._scripts.run("expire_due", encode_outcome(outcome), in_ms(self._policy.result_ttl_s), limit))

    def reap(self, holder: str, *, max_attempts: int, limit: int) -> Reaped:
        requeue, exhausted = self._scripts.run("reap", holder, self._lease_ms, max_attempts, limit)
        return Reaped(tuple(_texts(requeue)), tuple(_texts(exhausted)))

    def list_dead_letters(self, limit: int) -> list[str]:
        with unavailable_when_down():
            return _texts(self._redis.zrange(self._key("dead-letters"), 0, limit - 1))

    def list_old_dead_letters(self, *, after_s: float, limit: int) -> list[str]:
        with unavailable_when_down():
            now: Any = self._redis.time()
            before_ms = (now[0] - after_s) * 1000
            return _texts(self._redis.zrangebyscore(self._key("dead-letters"), "-inf", before_ms, start=0, num=limit))

    def count_dead_letters(self) -> int:
        with unavailable_when_down():
            count: Any = self._redis.zcard(self._key("dead-letters"))
        return int(count)

    def is_dead_letter(self, task_id: str) -> bool:
        return bool(self._scripts.run("is_dead_letter", task_id))

    def discard_dead_letter(self, task_id: str) -> bool:
        return bool(self._scripts.run("discard_dead_letter", task_id, in_ms(self._policy.result_ttl_s)))

    def refuse_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str, str]]) -> None:
        flat = [part for entry in entries for part in entry]
        self._scripts.run("refuse_deliveries", sink, RELAY_GROUP, *flat)

    def redeliver(self, task_id: str) -> int:
        return int(self._scripts.run("redeliver", task_id))

    def confirm_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str]]) -> None:
        flat = [part for entry in entries for part in entry]
        self._scripts.run("confirm_deliveries", sink, RELAY_GROUP, in_ms(self._policy.result_ttl_s), *flat)

    def ping(self) -> None:
        with unavailable_when_down():
            self._redis.ping()

    # --- helpers

    @property
    def _lease_ms(self) -> int:
        return in_ms(self._policy.lease_s)


def _overloaded(state: bytes, model: str, max_queue_depth: int) -> Overloaded:
    full = f"no more than {max_queue_depth} tasks may wait for {model}"
    late = f"too many tasks of {model} come before this request: it could not end before its deadline"
    return Overloaded(full if state == b"overloaded" else late)


def _known(subject: bytes, fingerprint: bytes) -> KnownKey:
    text = subject.decode()
    is_batch = text.startswith(_BATCH)
    name = text.partition(":")[2]
    return KnownKey(fingerprint.decode(), task_id=None if is_batch else name, batch_id=name if is_batch else None)


def _truths(values: Any) -> list[bool]:
    return [bool(value) for value in values]


def _attempts(values: Any) -> list[int | None]:
    """Return the attempts from the answer of a start; 0 becomes None."""
    return [value or None for value in values]


def _texts(values: Any) -> list[str]:
    return [value.decode() for value in values]
