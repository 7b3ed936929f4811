"""Interleaved rounds of all contenders, so that a drift of the machine's speed affects all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import urllib3

from bench import closed_loop
from bench.closed_loop import Load
from bench.contenders import Contender, Request, Running
from bench.processes import cpu_ms_each
from bench.workload import ROOT, Workload

#: Maximum difference between a prediction and the in-process model's.
TOLERANCE = 1e-4
#: Number of clients of most published figures; the batch size is observed with it.
_USUAL_CLIENTS = 64
_WARM_S = 3.0
#: A load lasts until this many times the requests in flight have been answered, because its ends do not count ...
_TURNS = 12
#: ... and in the open loop until this many requests have arrived, because a p99 of fewer is inaccurate; see `Plan.longest_s`.
_OPEN_REQUESTS = 300
_IDLE_TIMEOUT_S = 120.0
_IDLE_S = 0.5
_BATCH_SIZE_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Plan:
    """Durations, numbers of clients and number of rounds of a run."""

    clients: tuple[int, ...] = (1, 8, 64, 256)
    #: minimum and maximum duration of a load
    seconds: float = 4.0
    longest_s: float = 8.0
    #: shares of the highest load that arrive in the open loop
    open_loop: tuple[float, ...] = (0.5, 0.8)
    rounds: int = 3

    def lasting(self, wanted_s: float) -> float:
        return min(self.longest_s, max(self.seconds, wanted_s))


@dataclass
class Measurement:
    """Figures of one contender on one workload in one round; incomplete if it failed."""

    contender: str
    kind: str
    workload: str
    images_per_request: int
    #: result of `limit` in the same round
    limit: dict[str, Any]
    start_s: float | None = None
    #: by number of clients
    closed: dict[int, Load] = field(default_factory=dict)
    #: milliseconds per image, by number of clients, then by process
    cpu_ms: dict[int, dict[str, float]] = field(default_factory=dict)
    #: by share of the highest load
    opened: dict[float, Load] = field(default_factory=dict)
    #: of the largest process, by role
    memory_mb: dict[str, float] = field(default_factory=dict)
    #: by number of clients, if it was observed
    mean_batch_size: dict[int, float | None] = field(default_factory=dict)
    #: the reason if it failed
    error: str = ""


def limit(workload: Workload) -> dict[str, Any]:
    """Measure the workload's model with `bench.limit`."""
    return run_module("bench.limit", str(workload.folder), str(workload.image))


def measure(contender: Contender, workload: Workload, plan: Plan, limit: dict[str, Any]) -> Measurement:
    """Measure a contender; if it does not start, answers wrong, or fails under load, the result has an `error`.

    Args:
        limit: the figures of the same round in process.
    """
    found = Measurement(contender.name, contender.kind, workload.name, contender.images_per_request, limit)
    try:
        with contender.run(workload) as running:
            found.start_s = running.start_s
            _check(running, limit["prediction"])
            _closed_rounds(found, contender, running, plan)
            found.memory_mb = running.processes.memory_mb()
            _open_rounds(found, running, plan)
    except Exception as error:  # noqa: BLE001 no error may lose the figures of the others
        found.error = reason(error)
    return found


def reason(error: Exception) -> str:
    """Format the message of an error; a RuntimeError is a contender's fault and needs no type name."""
    return str(error) if isinstance(error, RuntimeError) else repr(error)


def wait_until_idle(request: Request) -> None:
    """Wait until the requests of earlier clients are done: they stay queued although their clients are gone.

    One more request waits behind them. Raises RuntimeError if it gets no answer.
    """
    try:
        with urllib3.PoolManager(retries=False, timeout=_IDLE_TIMEOUT_S) as http:
            request.send(http)
    except urllib3.exceptions.HTTPError as error:
        raise RuntimeError(f"requests of earlier clients do not end: {error}") from error
    time.sleep(_IDLE_S)


def closed(request: Request, *, clients: int, seconds: float) -> Load:
    """Run a closed loop. Raises RuntimeError if a request fails."""
    load = closed_loop.run(request, clients=clients, seconds=seconds)
    if load.errors:
        raise RuntimeError(f"{load.errors} of {load.requests} requests failed with {clients} clients")
    return load


def mean_batch_size(seen: Sequence[int]) -> float | None:
    """Compute the mean over batches from the sizes that requests observed: a batch of 32 is observed 32 times as often as 1."""
    return len(seen) / sum(1 / size for size in seen) if seen else None


def _check(running: Running, expected: Iterable[float]) -> None:
    difference = np.abs(np.array(running.prediction) - np.array(list(expected))).max()
    if difference > TOLERANCE:
        raise RuntimeError(f"its answer differs from that of the model in process by {difference:g}")


def _closed_rounds(found: Measurement, contender: Contender, running: Running, plan: Plan) -> None:
    numbers = contender.clients or plan.clients
    usual = min(numbers, key=lambda number: abs(number - _USUAL_CLIENTS))
    per_s = _warm(running, usual)
    for number in numbers:
        seconds = plan.lasting(_TURNS * number / per_s)
        wait_until_idle(running.request)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(_closed_round, found, running, clients=number, seconds=seconds)
            if number == usual:
                found.mean_batch_size[number] = mean_batch_size(_seen_batches(contender, running, load))
            load.result()


def _warm(running: Running, clients: int) -> float:
    """Run a load that is not counted; returns its approximate requests per second."""
    load = closed_loop.run(running.request, clients=clients, seconds=_WARM_S)
    return max(1, load.requests) / load.seconds


def _closed_round(found: Measurement, running: Running, *, clients: int, seconds: float) -> None:
    before = running.processes.cpu_s()
    load = closed(running.request, clients=clients, seconds=seconds)
    found.cpu_ms[clients] = cpu_ms_each(before, running.processes.cpu_s(), load.requests * found.images_per_request)
    found.closed[clients] = load


def _seen_batches(contender: Contender, running: Running, load: Future[None]) -> list[int]:
    """Observe the sizes of batches during the load; this adds less load than one more client."""
    seen = []
    while not wait([load], timeout=_BATCH_SIZE_INTERVAL_S).done:
        size = contender.batch_size(running)
        if size is not None and not load.done():
            seen.append(size)
    return seen


def _open_rounds(found: Measurement, running: Running, plan: Plan) -> None:
    highest = max(load.requests / load.seconds for load in found.closed.values())
    for share in plan.open_loop:
        wait_until_idle(running.request)
        rate_per_s = share * highest
        seconds = plan.lasting(_OPEN_REQUESTS / rate_per_s)
        figures = run_module("bench.open_loop", *map(str, (*_parts(running.request), rate_per_s, seconds)))
        found.opened[share] = Load(**figures)


def _parts(request: Request) -> tuple[str, Any, str]:
    return request.url, request.body, request.content_type


def run_module(module: str, *arguments: str) -> dict[str, Any]:
    """Run one of our modules as a process and parse its JSON output. Raises RuntimeError if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-3000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document
