"""Status of the service for operators: stores, queues, workers, outboxes, and the problems that need action."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from operator import attrgetter
from typing import get_args

from inference.container import Services
from inference.errors import ServiceUnavailable
from inference.rollout.worker_registry import WorkerInfo
from inference.runtime.health import OK
from inference.settings import SinkName
from inference.settings.installation import COMMAND
from inference.status.redis_durability import redis_servers
from inference.task_store import BatchFill, QueueStats, WebhookStats
from inference.task_store.outbox import OutboxStats, RelayInfo

logger = logging.getLogger(__name__)

#: Added to the longest pause of a relay: the time that a sink may take to report that it is down, seconds.
_RELAY_GRACE_S = 30.0
#: Time before the end of a key from which on it is a problem.
_KEY_NOTICE = timedelta(days=7)


@dataclass(frozen=True)
class ModelStatus:
    model: str
    version: str
    queue: QueueStats
    #: number of workers that have loaded it
    workers: int
    #: batches by minute, oldest first
    fill: tuple[BatchFill, ...] = ()


@dataclass(frozen=True)
class SinkStatus:
    sink: str
    outbox: OutboxStats
    #: relays that read its outbox now, or hold entries of it
    relays: tuple[RelayInfo, ...]


@dataclass(frozen=True)
class Status:
    #: by store, `ok` or a description of the problem
    stores: dict[str, str]
    #: empty while the task store does not answer, like `sinks` and `workers`
    models: tuple[ModelStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    workers: tuple[WorkerInfo, ...] = ()
    #: events that wait for their receivers; None while the task store does not answer
    webhooks: WebhookStats | None = None
    #: None while the task store does not answer
    dead_letters: int | None = None
    #: queue messages that no worker could read; None while the task store does not answer
    rejected_messages: int | None = None
    #: images that the object store has not taken yet; None while the task store does not answer
    unstored_images: int | None = None
    #: sentences; empty if there is no problem
    problems: tuple[str, ...] = ()
    #: sentences about states that work now, but may lose tasks later
    warnings: tuple[str, ...] = ()


def status_of(services: Services, *, describe: Callable[[ServiceUnavailable], str] = attrgetter("detail")) -> Status:
    """Collect the status now. A store that is down is part of it, and raises no error.

    Args:
        describe: returns the description of a store's problem; default: with the details that are for operators alone.
    """
    faults = {store: fault_of(check) for store, check in store_checks(services).items()}
    stores = {store: OK if fault is None else describe(fault) for store, fault in faults.items()}
    problems = [f"{store}: {state}" for store, state in stores.items() if faults[store]]
    if faults["task_store"]:
        return Status(stores, problems=tuple(problems))
    workers = services.presence.workers()
    models = _models(services, workers)
    sinks = _sinks(services)
    servers = redis_servers(services.settings)
    problems += [problem for server in servers for problem in (*server.faults(), *server.eviction())]
    problems += [f"{problem}: new requests are refused" for problem in services.free_space.problems()]
    problems += [f"no worker has {model.model} loaded" for model in models if not model.workers]
    problems += [problem for sink in sinks for problem in _sink_problems(services, sink)]
    problems += _key_problems(services)
    webhooks = services.store.get_webhook_stats()
    problems += _webhook_problems(services, webhooks)
    warnings = [*(warning for server in servers for warning in server.warnings()), *_webhook_warnings(webhooks)]
    return Status(
        stores,
        models,
        sinks,
        tuple(workers),
        webhooks=webhooks,
        dead_letters=services.store.count_dead_letters(),
        rejected_messages=services.rejected.count(),
        unstored_images=services.store.count_kept_images(),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _key_problems(services: Services) -> list[str]:
    """Return problems of the callers' keys. They name no key and no owner, since not only administrators read them."""
    expiring = services.keys.list_expiring(_KEY_NOTICE)
    problems = []
    if services.keys.is_file_broken:
        problems.append(f"security.keys_file has errors, and an earlier version of it counts: {COMMAND} check-config lists them")
    if expiring and (first := expiring[0].expires_at) is not None:
        when = f"within {_KEY_NOTICE.days} days, the first at {first.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        problems.append(f"{len(expiring)} of the callers' keys expire {when}: {COMMAND} keys list shows them")
    return problems


def store_checks(services: Services) -> dict[str, Callable[[], object]]:
    """Return by store a call that raises ServiceUnavailable, or an error of a client library, if the store does not answer."""
    return {
        "task_store": services.store.ping,
        "broker": lambda: [services.broker.get_depth(model.queue) for model in services.descriptions.values()],
        "object_store": services.objects.ping,
    }


def _webhook_problems(services: Services, webhooks: WebhookStats) -> list[str]:
    if not webhooks.waiting or services.may_send_webhooks:
        return []
    return [f"{webhooks.waiting} events wait for webhooks, and webhooks.secret is not set"]


def _webhook_warnings(webhooks: WebhookStats) -> list[str]:
    if not webhooks.receivers_down:
        return []
    return [f"receivers of webhooks that do not answer: {webhooks.receivers_down}; events that wait: {webhooks.waiting}"]


def fault_of(call: Callable[[], object]) -> ServiceUnavailable | None:
    """Return the error for which `call` cannot be served; None if it returns."""
    try:
        call()
    except ServiceUnavailable as error:
        return error
    except Exception:
        # Client libraries raise errors of many types if a server goes away; a failed probe means only that the server is down.
        logger.exception("the check of a store failed")
        return ServiceUnavailable("the check failed; the log has the error")
    return None


def _models(services: Services, workers: Sequence[WorkerInfo]) -> tuple[ModelStatus, ...]:
    loaded = Counter(model.name for worker in workers for model in worker.models)
    return tuple(
        ModelStatus(
            model.name,
            model.version,
            services.store.get_queue_stats(model.queue),
            loaded[model.name],
            services.store.get_batch_fill(model.queue),
        )
        for model in services.descriptions.values()
    )


def _sinks(services: Services) -> tuple[SinkStatus, ...]:
    """Return the configured sinks, and others for which results still wait."""
    found = []
    for sink in get_args(SinkName):
        stats = services.outbox_stats(sink)
        if sink in services.settings.possible_sinks or stats.entries:
            relays = [relay for relay in services.relays(sink) if relay.held or not _is_silent(services, relay)]
            found.append(SinkStatus(sink, stats, tuple(relays)))
    return tuple(found)


def _sink_problems(services: Services, status: SinkStatus) -> Iterator[str]:
    waits = f"{status.outbox.entries} results wait for {status.sink}"
    if status.sink not in services.settings.possible_sinks:
        yield f"{waits}, which is not a configured sink"
        return
    if status.outbox.is_over(services.settings.outbox):
        yield f"{waits}, the oldest for {status.outbox.oldest_age_s:.0f} s: new requests are refused"
    if all(_is_silent(services, relay) for relay in status.relays):
        yield f"no relay reads the outbox of {status.sink}"


def _is_silent(services: Services, relay: RelayInfo) -> bool:
    return relay.silent_s > services.settings.relay.max_backoff_s + _RELAY_GRACE_S
