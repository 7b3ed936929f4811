"""Section of monitoring: HTTP servers of the worker and the relay for their metrics and probes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from inference.settings.http_address import listening_host
from inference.settings.value_checks import Section

Port = Annotated[int, Field(ge=1, le=65535)]


class MonitoringSettings(Section):
    """`/metrics`, `/health/live` and `/health/ready` of the worker and the relay; the API has them at its own address."""

    #: address that both listen on, without keys: who may connect is decided by the network
    host: Annotated[str, AfterValidator(listening_host)] = "127.0.0.1"
    #: port of a worker, one for each worker on a machine; none: it does not listen
    worker_port: Port | None = None
    #: port of the relay; none: it does not listen
    relay_port: Port | None = None
