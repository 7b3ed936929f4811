"""Commands of Celery's remote control that differ in a worker of this service.

Celery's own commands that change a pool or a task function have no effect here. Each of them is replaced by a command that has
the effect of its name, or answers with an error. They are registered under Celery's names, with Celery's signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from billiard.common import TERM_SIGNAME
from celery.app.utils import filter_hidden_settings
from celery.utils.functional import maybe_list
from celery.worker import control as stock
from celery.worker import state as worker_state

from inference.domain import PREDICT_TASK
from inference.settings import shown_value
from tasks.worker.worker import InferenceWorker

Command = TypeVar("Command", bound=Callable[..., Any])

_command: Callable[..., Callable[[Command], Command]] = stock.control_command
_inspect: Callable[..., Callable[[Command], Command]] = stock.inspect_command


def _worker(state: Any) -> InferenceWorker:
    worker: InferenceWorker = state.consumer.controller.inference
    return worker


@_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Cancel waiting tasks; with terminate also running ones."""
    task_ids = list(maybe_list(task_id) or ())
    worker_state.revoked.update(task_ids)
    for request in filter(None, map(worker_state.requests.get, task_ids)) if terminate else ():
        request.terminate(state.consumer.pool, signal or TERM_SIGNAME)
    # The record keeps it for tasks that no worker has yet, and for workers that start later.
    _worker(state).store_calls.cancel(task_ids, running=terminate)
    return stock.ok(f"tasks {', '.join(task_ids)} {'terminated' if terminate else 'flagged as revoked'}")


@_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: Any, signal: Any, task_id: Any, **options: Any) -> Any:
    """Cancel waiting and running tasks. No process is killed."""
    return revoke(state, task_id, terminate=True, signal=signal, **options)


@_command(args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)], signature="<queue>")
def add_consumer(state: Any, queue: str, **options: Any) -> Any:
    """Consume from a queue of this worker's models again."""
    served = _worker(state).queues
    if queue not in served:
        return stock.nok(f"this worker has loaded no model for {queue}, only for {', '.join(served)}: start one with -Q {queue}")
    return stock.add_consumer(state, queue, **options)


@_command(args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit>")
def rate_limit(state: Any, task_name: str, rate_limit: Any, **_: Any) -> Any:
    """Set a rate limit, but not for predict tasks."""
    if task_name == PREDICT_TASK:
        return stock.nok(f"{PREDICT_TASK} has no rate limit: the predictor sets the worker's rate")
    return stock.rate_limit(state, task_name, rate_limit)


@_command(args=[("task_name", str), ("soft", float), ("hard", float)], signature="<task_name> <soft_secs> [hard_secs]")
def time_limit(state: Any, task_name: str | None = None, hard: Any = None, soft: Any = None, **_: Any) -> Any:
    """Set time limits, but not for predict tasks."""
    if task_name == PREDICT_TASK:
        return stock.nok(
            f"{PREDICT_TASK} has its time limits in worker.predict_timeout_s of the configuration and in each task's deadline"
        )
    return stock.time_limit(state, task_name, hard, soft)


@_command()
def disable_events(state: Any) -> Any:
    """Stop sending events of tasks until enable_events."""
    dispatcher = state.consumer.event_dispatcher
    if dispatcher is not None and not dispatcher.groups:
        dispatcher.groups.update(("worker", "task"))  # to Celery an empty set means all groups, and it removes nothing from it
    return stock.disable_events(state)


@_inspect()
def stats(state: Any) -> Any:
    """Return Celery's statistics, without passwords in the broker's options and alternative addresses."""
    found = stock.stats(state)
    return found | {"broker": shown_value(filter_hidden_settings(found["broker"]))}


def _no_pool(*_: Any, **__: Any) -> Any:
    """Refuse: a worker has no pool."""
    return stock.nok("a worker has no pool: one predictor process runs its batches; for more throughput start another worker")


for _name in ("pool_grow", "pool_shrink"):
    _command(name=_name, args=[("n", int)], signature="[N=1]")(_no_pool)
for _name, _args in {"pool_restart": [], "autoscale": [("max", int), ("min", int)]}.items():
    _command(name=_name, args=_args)(_no_pool)
