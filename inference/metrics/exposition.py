"""Text of a process's metrics, in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from inference.metrics.process_figures import ProcessFigures
from inference.metrics.process_files import SharedInstruments
from inference.metrics.registry import INSTRUMENTS
from inference.metrics.shared_values import shared_folder

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(*collectors: Collector) -> bytes:
    """Return the instruments of this process, or of all processes that share a folder with it, and the figures that are read now.

    Args:
        collectors: read in addition to the figures of the process: a `ServiceMetrics` of inference/status.
    """
    folder = shared_folder()
    read_now = CollectorRegistry(auto_describe=False)
    for collector in (*collectors, ProcessFigures()):
        read_now.register(collector)
    if folder is None:
        return generate_latest(INSTRUMENTS) + generate_latest(read_now)
    read_now.register(SharedInstruments(folder))
    return generate_latest(read_now)
