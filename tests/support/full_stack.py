"""API, two workers and two relays on the real servers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from support.client import wait_until
from support.parts import READY_TIMEOUT_S, Parts
from support.service import ROOT
from support.tenant import Tenant

CONFIG = ROOT / "configurations" / "full.yaml"
#: As they are named there.
SINKS = ("mongodb", "kafka")

WORKERS = ("worker-1", "worker-2")
RELAYS = ("relay-1", "relay-2")


class FullStack(Parts):
    """Their processes, on configurations/full.yaml.

    Args:
        variables: added to the tenant's names.
    """

    def __init__(self, folder: Path, tenant: Tenant, variables: Mapping[str, str]) -> None:
        super().__init__(folder, CONFIG, {**tenant.variables, **variables})
        self.tenant = tenant

    def start_all(self) -> None:
        self.start_api()
        for worker in WORKERS:
            self.start_worker(worker)
        for relay in RELAYS:
            self.start_relay(relay)
        self.wait_ready()
        # A worker says that it is there once its model is warm; from RabbitMQ it takes messages a second later.
        wait_until(
            lambda: all(re.search(rf"{worker}@\S+ ready\.", self.log(worker)) for worker in WORKERS),
            timeout_s=READY_TIMEOUT_S,
            what="both workers take messages",
        )
        self.wait_relays()

    def wait_relays(self) -> None:
        wait_until(
            lambda: all("relaying to" in self.log(relay) for relay in RELAYS),
            timeout_s=READY_TIMEOUT_S,
            what="both relays are up",
        )
