"""Metrics of the whole service, read from its stores when they are asked for; every part of the service exposes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.container import Services
from inference.rollout.worker_registry import WorkerInfo
from inference.runtime.timed_call import TimedCall
from inference.runtime.ttl_cache import TtlCache
from inference.settings import SinkName
from inference.status.certificates import certificate_ends
from inference.status.collect import fault_of, store_checks
from inference.task_store.service_figures import ServiceFigures, read_service_figures

#: Seconds for which the figures are valid.
_AGE_S = 1.0
#: Longest wait for the answer of one store, seconds: Prometheus gives up after 10.
_TIMEOUT_S = 2.5
#: Owners with a time series of their own.
_MAX_OWNERS = 10
_OTHER_OWNERS = "other"
_TASK_STORE = "task_store"


@dataclass(frozen=True)
class _StoreFigures:
    """Everything that is read from the task store."""

    service: ServiceFigures
    workers: list[WorkerInfo]
    #: bytes that the store uses, and its limit; 0: unknown
    memory_bytes: tuple[int, int]


class ServiceMetrics(Collector):
    """Collector of the metrics. A store that is down has `store_up` 0, and its figures are missing.

    Args:
        clock: in seconds.
    """

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        checks = {store: TimedCall(check) for store, check in store_checks(services).items() if store != _TASK_STORE}
        self._checks: Mapping[str, TimedCall[object]] = checks
        self._read_store = TimedCall(self._store_figures)
        self._metrics = TtlCache(lambda: tuple(self._read()), max_age_s=_AGE_S, clock=clock)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are read at most once a second."""
        yield from self._metrics()

    def _read(self) -> Iterator[Metric]:
        found: list[_StoreFigures] = []
        faults = {_TASK_STORE: fault_of(lambda: found.append(self._read_store(_TIMEOUT_S)))}
        for store, check in self._checks.items():
            faults[store] = fault_of(lambda check=check: check(_TIMEOUT_S))  # type: ignore[misc]
        up = {store: int(fault is None) for store, fault in faults.items()}
        yield _by_label("store_up", "1 if the store answers, else 0.", "store", up)
        for figures in found:
            yield from self._of_queues(figures)
            yield from _of_deliveries(figures.service)
            yield from _of_memory(*figures.memory_bytes)
        disks = self._services.free_space.free_bytes()
        yield _by_label("free_disk_bytes", "Free bytes on a disk of this machine.", "content", disks)
        ends = certificate_ends(self._services.settings)
        yield _by_label("certificate_not_after_timestamp_seconds", "End of a certificate, Unix time.", "setting", ends)

    def _store_figures(self) -> _StoreFigures:
        """Read the task store in a few round trips, however much there is to do. Raises ServiceUnavailable."""
        services = self._services
        queues = [model.queue for model in services.descriptions.values()]
        sinks = get_args(SinkName)
        figures = read_service_figures(services.redis, services.settings.task_store.key_prefix, queues, sinks)
        return _StoreFigures(figures, services.presence.workers(), services.free_space.memory_bytes())

    def _of_queues(self, figures: _StoreFigures) -> Iterator[Metric]:
        models = self._services.descriptions.values()
        queues = {model.name: figures.service.queues[model.queue] for model in models}
        loaded = Counter(model.name for worker in figures.workers for model in worker.models)
        by_model: dict[str, tuple[str, Mapping[str, float]]] = {
            "waiting_tasks": ("Tasks that wait for a worker.", {name: queue.waiting for name, queue in queues.items()}),
            "running_tasks": ("Tasks that run.", {name: queue.running for name, queue in queues.items()}),
            "oldest_waiting_task_age_seconds": (
                "Age of the task that has waited for longest.",
                {name: queue.oldest_age_s for name, queue in queues.items()},
            ),
            "workers_with_model": ("Workers that have the model loaded.", {name: loaded[name] for name in queues}),
        }
        for name, (text, values) in by_model.items():
            yield _by_label(name, text, "model", values)
        yield _gauge("workers", "Workers that are up.", len(figures.workers))
        open_tasks = _largest(figures.service.open_tasks)
        yield _by_label("owner_open_tasks", "Tasks of an owner that have not ended.", "owner", open_tasks)


def _of_deliveries(service: ServiceFigures) -> Iterator[Metric]:
    outboxes = service.outboxes
    entries = {sink: outbox.entries for sink, outbox in outboxes.items()}
    yield _by_label("outbox_entries", "Results that wait for the sink.", "sink", entries)
    ages = {sink: outbox.oldest_age_s for sink, outbox in outboxes.items()}
    yield _by_label("outbox_oldest_entry_age_seconds", "Age of the oldest result that waits for the sink.", "sink", ages)
    yield _gauge("waiting_webhooks", "Events that wait for their receivers.", service.webhooks.entries)
    yield _gauge("oldest_waiting_webhook_age_seconds", "Age of the oldest event that waits.", service.webhooks.oldest_age_s)
    yield _gauge("dead_letters", "Dead letters that are kept.", service.dead_letters)
    yield _gauge("rejected_messages", "Queue messages that no worker could read.", service.rejected_messages)
    yield _gauge("unstored_images", "Images that the object store has not taken yet.", service.unstored_images)


def _of_memory(used: int, limit: int) -> Iterator[Metric]:
    yield _gauge("task_store_memory_bytes", "Memory that the record store uses.", used or None)
    yield _gauge("task_store_memory_limit_bytes", "Limit of the memory of the record store.", limit or None)


def _largest(open_tasks: Mapping[str, int]) -> dict[str, int]:
    """Return the owners with the most tasks; all others together are one."""
    largest = dict(nlargest(_MAX_OWNERS, open_tasks.items(), key=lambda entry: entry[1]))
    others = sum(open_tasks.values()) - sum(largest.values())
    if others:
        largest[_OTHER_OWNERS] = largest.get(_OTHER_OWNERS, 0) + others
    return largest


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"inference_{name}", text, value=value)


def _by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"inference_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
