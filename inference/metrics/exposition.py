"""Text of a process's metrics, in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from inference.metrics.process_figures import ProcessFigures
from inference.metrics.registry import INSTRUMENTS

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(*collectors: Collector) -> bytes:
    """Return the instruments of this process, what `collectors` read now, and figures of the process.

    Args:
        collectors: for the figures of the whole service an `inference.status.service_metrics.ServiceMetrics`.
    """
    read_now = CollectorRegistry(auto_describe=False)
    for collector in (*collectors, ProcessFigures()):
        read_now.register(collector)
    return generate_latest(INSTRUMENTS) + generate_latest(read_now)
