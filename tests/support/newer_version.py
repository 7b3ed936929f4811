"""`python tests/support/newer_version.py api|relay|worker …`: a part of the next version, whose data differs.

- the queue message has format 2: `images` in place of `items`, which this version's workers cannot read. It reads both formats;
- task records, outcomes and heartbeats have members that this version does not know.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1] == "api":
    from gevent import monkey

    monkey.patch_all()

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from inference import domain
from inference.broker import envelope
from inference.rollout import worker_registry
from inference.task_store import redis_store, submissions

FORMAT = 2
_from_kwargs, _encode_outcome, _record_fields = domain.QueueMessage.from_kwargs, domain.encode_outcome, submissions.record_fields


@dataclasses.dataclass(frozen=True)
class _LoadedModelInfo(worker_registry.LoadedModelInfo):
    cost: float = 1.0


def _body(message: domain.QueueMessage) -> bytes:
    return orjson.dumps([[], {"model": message.model, "images": message.items}, {"chain": None}])


def _read(kwargs: Mapping[str, Any]) -> domain.QueueMessage:
    return _from_kwargs({"items": kwargs.get("images"), **kwargs})


def _encode(outcome: domain.Outcome) -> bytes:
    head, newline, vector = _encode_outcome(outcome).partition(b"\n")
    return orjson.dumps({**orjson.loads(head), "energy_j": 0.5}) + newline + vector


def _fields(request: domain.TaskSubmission) -> tuple[Any, ...]:
    return (*_record_fields(request), "region", "eu")


def become_newer() -> None:
    """Replace the parts that differ in the next version."""
    envelope.MESSAGE_FORMAT, envelope.body = FORMAT, _body
    domain.QueueMessage.from_kwargs = staticmethod(_read)  # type: ignore[method-assign,assignment]
    submissions.record_fields = _fields
    redis_store.encode_outcome = _encode  # type: ignore[attr-defined]
    worker_registry.LoadedModelInfo = _LoadedModelInfo  # type: ignore[misc]


if __name__ == "__main__":
    become_newer()
    _, part, *arguments = sys.argv
    if part == "worker":
        from celery.__main__ import main as celery

        from tasks.worker import heartbeat

        heartbeat.LoadedModelInfo = _LoadedModelInfo  # type: ignore[misc,attr-defined]
        sys.argv = ["celery", "-A", "tasks", "worker", *arguments]
        celery()
    else:
        import server

        sys.exit(server.main([part, *arguments]))
