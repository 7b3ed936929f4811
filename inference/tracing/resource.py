"""Resource of the spans: the process that they come from, in the terms of OpenTelemetry."""

from __future__ import annotations

import os
import socket

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from inference import __version__
from inference.settings import TracingSettings


def resource_of(settings: TracingSettings, role: str) -> Resource:
    """Return the resource of this process; settings take precedence over `OTEL_…`, and these over our own values.

    Args:
        role: the process: api, worker or relay.
    """
    own = {
        "service.name": f"inference-{role}",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    name = {"service.name": settings.service_name} if settings.service_name else {}
    chosen = Resource({**settings.resource_attributes, **name})
    return Resource.create({**own}).merge(OTELResourceDetector().detect()).merge(chosen)
