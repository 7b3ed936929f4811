"""Rounds: every contender in turn, again and again, so that a machine whose speed drifts drifts for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench import closed_loop
from bench.closed_loop import Load
from bench.contenders import Contender, Running
from bench.workload import ROOT, Workload

#: Largest difference of a prediction from the in-process model's.
TOLERANCE = 1e-4
_WARM_S = 4.0


@dataclass(frozen=True)
class Plan:
    """How long and how wide."""

    clients: tuple[int, ...] = (1, 8, 64, 256)
    seconds: float = 8.0
    #: shares of the highest load that arrive in the open loop
    open_loop: tuple[float, ...] = (0.5, 0.8)
    rounds: int = 3


@dataclass
class Measurement:
    """One contender on one workload in one round."""

    contender: str
    workload: str
    start_s: float
    #: by number of clients
    closed: dict[int, Load] = field(default_factory=dict)
    #: by share of the highest load
    opened: dict[float, Load] = field(default_factory=dict)
    #: of the run with 64 clients (or the nearest), by process
    cpu_ms_per_image: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)


def limit(workload: Workload) -> dict[str, Any]:
    """What `bench.limit` says of the workload's model."""
    command = [sys.executable, "-m", "bench.limit", str(workload.folder), str(workload.image)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"the in-process run failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(contender: Contender, workload: Workload, plan: Plan, expected: Iterable[float]) -> Measurement:
    """Raises RuntimeError when it does not start, answers wrong, or fails under load."""
    with contender.run(workload) as running:
        _check(contender, running, expected)
        measurement = Measurement(contender.name, workload.name, running.start_s)
        _closed(running, clients=max(plan.clients), seconds=_WARM_S)
        for clients in plan.clients:
            cpu_before = running.cpu_s()
            load = _closed(running, clients=clients, seconds=plan.seconds)
            if load.errors:
                raise RuntimeError(f"{contender.name}: {load.errors} of {load.requests} requests failed at {clients} clients")
            measurement.closed[clients] = load
            if clients == _reference(plan):
                measurement.cpu_ms_per_image = _cpu_ms(cpu_before, running.cpu_s(), load)
        measurement.memory_mb = running.memory_mb()
        highest = max(load.requests / load.seconds for load in measurement.closed.values())
        for share in plan.open_loop:
            time.sleep(1)
            measurement.opened[share] = _open(running, rate_per_s=share * highest, seconds=plan.seconds)
    return measurement


def _check(contender: Contender, running: Running, expected: Iterable[float]) -> None:
    difference = np.abs(np.array(running.prediction) - np.array(list(expected))).max()
    if difference > TOLERANCE:
        raise RuntimeError(f"{contender.name} answers something else than the model in process: {difference:g} apart")


def _reference(plan: Plan) -> int:
    return min(plan.clients, key=lambda clients: abs(clients - 64))


def _closed(running: Running, *, clients: int, seconds: float) -> Load:
    request = running.request
    return closed_loop.run(request.url, request.body, request.content_type, clients=clients, seconds=seconds)


def _open(running: Running, *, rate_per_s: float, seconds: float) -> Load:
    request = running.request
    arguments = [request.url, str(request.body), request.content_type, str(rate_per_s), str(seconds)]
    command = [sys.executable, "-m", "bench.open_loop", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)  # noqa: S603
    return Load(**json.loads(done.stdout))


def _cpu_ms(before: dict[str, float], after: dict[str, float], load: Load) -> dict[str, float]:
    return {role: (used - before.get(role, 0.0)) * 1000 / load.requests for role, used in after.items()}


def as_data(measurement: Measurement) -> dict[str, Any]:
    return asdict(measurement)
