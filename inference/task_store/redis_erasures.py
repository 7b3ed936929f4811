"""Erasures in the Redis task store.

Redis keys:

    PREFIX:erasures              hash: by erasure id, the objects to be deleted, as JSON
    PREFIX:erasure:ERASURE_ID    hash: progress of an erasure; `owner`, `tasks`, `pending:STORE`, `cannot:STORE`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from inference.domain import Outcome, TaskStatus, encode_outcome
from inference.errors import TaskCanceled, TaskNotFound
from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import ErasureProgress, ErasureState, no_erasure
from inference.task_store.redis_webhooks import RedisWebhooks
from inference.task_store.scripts import RELAY_GROUP

#: Time for which the progress of an erasure can be read, milliseconds.
_PROGRESS_LIFE_MS = 86_400_000
_PENDING, _CANNOT = "pending:", "cannot:"


class RedisErasures(RedisWebhooks):
    """Part of `TaskStore` for erasures."""

    _index_max: int

    def erase(self, task_ids: Sequence[str], *, erasure_id: str, owner: str, object_keys: Sequence[str]) -> list[str]:
        canceled = Outcome.of_error(TaskStatus.CANCELED, TaskCanceled("the task was erased before it had a result"))
        replacement = TaskNotFound("the task was erased").to_dict()
        erased = self._scripts.run(
            "erase",
            *(encode_outcome(canceled), self._ttl_ms, self._index_max, erasure_id, _PROGRESS_LIFE_MS, owner),
            *(orjson.dumps(object_keys), len(object_keys), orjson.dumps(replacement)),
            *dict.fromkeys(task_ids),
        )
        return [task_id.decode() for task_id in erased]

    def get_erasure(self, erasure_id: str) -> ErasureProgress:
        with unavailable_when_down():
            found: Any = self._redis.hgetall(self._key("erasure", erasure_id))
        if not found:
            raise no_erasure(erasure_id)
        fields = {name.decode(): value.decode() for name, value in found.items()}
        return ErasureProgress(erasure_id, fields.pop("owner"), int(fields.pop("tasks")), _states(fields))

    def list_object_erasures(self, limit: int) -> dict[str, list[str]]:
        with unavailable_when_down():
            answer: Any = self._redis.hscan(self._key("erasures"), count=limit)
        _, found = answer
        return {erasure_id.decode(): orjson.loads(keys) for erasure_id, keys in found.items()}

    def end_object_erasure(self, erasure_id: str) -> None:
        self._scripts.run("end_object_erasure", erasure_id)

    def confirm_erasures(self, sink: str, entries: Sequence[tuple[bytes, str, bool]]) -> None:
        flat = [part for entry_id, erasure_id, is_erased in entries for part in (entry_id, erasure_id, int(not is_erased))]
        self._scripts.run("confirm_erasures", sink, RELAY_GROUP, *flat)


def _states(fields: dict[str, str]) -> dict[str, ErasureState]:
    """Return the state by store; `fields` are numbers of objects, and of results in each sink."""
    states = {}
    for name, count in fields.items():
        if not name.startswith(_PENDING):
            continue
        store = name.removeprefix(_PENDING)
        if int(count) > 0:
            states[store] = ErasureState.PENDING
        else:
            states[store] = ErasureState.CANNOT if _CANNOT + store in fields else ErasureState.ERASED
    return dict(sorted(states.items()))
