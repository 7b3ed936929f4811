"""`python tests/support/dying_worker.py -A tasks worker`: a worker, killed when it accepts or leases a task named `killer-…`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from celery.__main__ import main

from inference.task_store.redis_store import RedisTaskStore

_accept, _lease = RedisTaskStore.accept, RedisTaskStore.lease


def _die_of(*task_ids: str) -> None:
    if any(task_id.startswith("killer-") for task_id in task_ids):
        os.kill(os.getpid(), signal.SIGKILL)


def _dying_accept(store: RedisTaskStore, request: Any, **options: Any) -> Any:
    _die_of(request.task_id)
    return _accept(store, request, **options)


def _dying_lease(store: RedisTaskStore, holder: str, task_ids: Any) -> Any:
    if sys._getframe(1).f_code.co_name != "move_to_dead_letters":  # which makes the killer a dead letter, on another thread
        _die_of(*task_ids)
    return _lease(store, holder, task_ids)


if __name__ == "__main__":
    RedisTaskStore.accept, RedisTaskStore.lease = _dying_accept, _dying_lease  # type: ignore[assignment,method-assign]
    sys.argv[0] = "celery"
    main()
