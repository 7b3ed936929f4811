"""Monitoring of the worker and of the relay over HTTP: their metrics and probes, on a port of its own."""

from __future__ import annotations

from typing import Literal, Protocol

from inference.container import Services
from inference.metrics.exposition import CONTENT_TYPE, exposition
from inference.runtime.health import Checks
from inference.runtime.monitoring_server import MonitoringServer, Page, health_pages
from inference.status.service_metrics import ServiceMetrics


class Health(Protocol):
    """Checks of a process. The methods are called on threads of the server."""

    def live(self) -> Checks:
        """Whether each loop makes progress or is idle."""

    def ready(self) -> Checks:
        """Whether the process does its work."""


def start_monitoring(services: Services, health: Health, part: Literal["worker", "relay"]) -> None:
    """Serve metrics and probes, if the settings name a port for this part. Raises ConfigurationError: it is not available."""
    options = services.settings.monitoring
    port = options.worker_port if part == "worker" else options.relay_port
    if port is None:
        return
    service = ServiceMetrics(services)
    pages = {
        "/metrics": lambda: Page(CONTENT_TYPE, exposition(service)),
        **health_pages(live=health.live, ready=health.ready),
    }
    MonitoringServer(options.host, port, pages, key=f"monitoring.{part}_port").start()
