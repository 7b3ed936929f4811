"""Rounds: every contender in turn, again and again, so that a machine whose speed drifts drifts for all of them."""

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

#: Largest difference of a prediction from the in-process model's.
TOLERANCE = 1e-4
#: As many clients as most figures are asked for: the batch size is seen with so many.
_USUAL_CLIENTS = 64
_WARM_S = 3.0
#: A load lasts until this many times what is in flight has been answered, since its ends count for nothing ...
_TURNS = 12
#: ... and in the open loop until this many requests have come, since a p99 of fewer says little; within `Plan.longest_s`.
_OPEN_REQUESTS = 300
_SETTLE_TIMEOUT_S = 120.0
_SETTLE_S = 0.5
_BATCH_LOOK_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Plan:
    """How long and how wide."""

    clients: tuple[int, ...] = (1, 8, 64, 256)
    #: of a load, at least and at most
    seconds: float = 4.0
    longest_s: float = 8.0
    #: shares of the highest load that arrive in the open loop
    open_loop: tuple[float, ...] = (0.5, 0.8)
    rounds: int = 3

    def lasting(self, wanted_s: float) -> float:
        return min(self.longest_s, max(self.seconds, wanted_s))


@dataclass
class Measurement:
    """One contender on one workload in one round; what is there of it where it failed."""

    contender: str
    kind: str
    workload: str
    images_per_request: int
    #: what `limit` said in the same round
    limit: dict[str, Any]
    start_s: float | None = None
    #: by number of clients
    closed: dict[int, Load] = field(default_factory=dict)
    #: milliseconds an image, by number of clients, then by process
    cpu_ms: dict[int, dict[str, float]] = field(default_factory=dict)
    #: by share of the highest load
    opened: dict[float, Load] = field(default_factory=dict)
    #: of the largest process, by what it is
    memory_mb: dict[str, float] = field(default_factory=dict)
    #: by number of clients, where it was looked at
    mean_batch_size: dict[int, float | None] = field(default_factory=dict)
    #: why it has no more
    error: str = ""


def limit(workload: Workload) -> dict[str, Any]:
    """What `bench.limit` says of the workload's model."""
    return json_of("bench.limit", str(workload.folder), str(workload.image))


def measure(contender: Contender, workload: Workload, plan: Plan, limit: dict[str, Any]) -> Measurement:
    """Raises nothing: a contender that does not start, answers wrong, or fails under load has an `error`.

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
    except Exception as error:  # noqa: BLE001 whatever it is, what the others reach must not be lost with it
        found.error = reason(error)
    return found


def reason(error: Exception) -> str:
    """What a contender does wrong is a RuntimeError that says it all; anything else is named too."""
    return str(error) if isinstance(error, RuntimeError) else repr(error)


def settle(request: Request) -> None:
    """Until what earlier clients left behind is done: nobody takes back a request when its client has gone.

    One more request waits its turn behind them. Raises RuntimeError when it gets no answer.
    """
    try:
        with urllib3.PoolManager(retries=False, timeout=_SETTLE_TIMEOUT_S) as http:
            request.send(http)
    except urllib3.exceptions.HTTPError as error:
        raise RuntimeError(f"it does not come to rest: {error}") from error
    time.sleep(_SETTLE_S)


def closed(request: Request, *, clients: int, seconds: float) -> Load:
    """Raises RuntimeError when a request fails."""
    load = closed_loop.run(request.url, request.body, request.content_type, clients=clients, seconds=seconds)
    if load.errors:
        raise RuntimeError(f"{load.errors} of {load.requests} requests failed with {clients} clients")
    return load


def mean_batch_size(seen: Sequence[int]) -> float | None:
    """Mean over batches, from the sizes of the batches that requests met: one of 32 is met 32 times as often as one of 1."""
    return len(seen) / sum(1 / size for size in seen) if seen else None


def _check(running: Running, expected: Iterable[float]) -> None:
    difference = np.abs(np.array(running.prediction) - np.array(list(expected))).max()
    if difference > TOLERANCE:
        raise RuntimeError(f"it answers something else than the model in process: {difference:g} apart")


def _closed_rounds(found: Measurement, contender: Contender, running: Running, plan: Plan) -> None:
    numbers = contender.clients or plan.clients
    usual = min(numbers, key=lambda number: abs(number - _USUAL_CLIENTS))
    per_s = _warm(running, usual)
    for number in numbers:
        seconds = plan.lasting(_TURNS * number / per_s)
        settle(running.request)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(_closed_round, found, running, clients=number, seconds=seconds)
            if number == usual:
                found.mean_batch_size[number] = mean_batch_size(_seen_batches(contender, running, load))
            load.result()


def _warm(running: Running, clients: int) -> float:
    """A load that counts for nothing; gives about how many requests a second there were."""
    load = closed_loop.run(*_parts(running.request), clients=clients, seconds=_WARM_S)
    return max(1, load.requests) / load.seconds


def _closed_round(found: Measurement, running: Running, *, clients: int, seconds: float) -> None:
    before = running.processes.cpu_s()
    load = closed(running.request, clients=clients, seconds=seconds)
    found.cpu_ms[clients] = cpu_ms_each(before, running.processes.cpu_s(), load.requests * found.images_per_request)
    found.closed[clients] = load


def _seen_batches(contender: Contender, running: Running, load: Future[None]) -> list[int]:
    """Sizes of batches while the load lasts. To ask is a load too, but that of less than one client more."""
    seen = []
    while not wait([load], timeout=_BATCH_LOOK_INTERVAL_S).done:
        size = contender.batch_size(running)
        if size is not None and not load.done():
            seen.append(size)
    return seen


def _open_rounds(found: Measurement, running: Running, plan: Plan) -> None:
    highest = max(load.requests / load.seconds for load in found.closed.values())
    for share in plan.open_loop:
        settle(running.request)
        rate_per_s = share * highest
        seconds = plan.lasting(_OPEN_REQUESTS / rate_per_s)
        figures = json_of("bench.open_loop", *map(str, (*_parts(running.request), rate_per_s, seconds)))
        found.opened[share] = Load(**figures)


def _parts(request: Request) -> tuple[str, Any, str]:
    return request.url, request.body, request.content_type


def json_of(module: str, *arguments: str) -> dict[str, Any]:
    """What a module of ours prints, run as a process of its own. Raises RuntimeError when it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-3000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document
