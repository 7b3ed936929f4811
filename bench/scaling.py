"""Scaling: two workers on the queues of two models, and four API processes with a check of every answer."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import workload
from bench.closed_loop import Load
from bench.contenders import Ours, Request, first_answer
from bench.processes import Processes
from bench.report import Row, row
from bench.rounds import closed, run_module, wait_until_idle
from bench.workload import Workload

_CLIENTS = 64
#: Long, because a few batches in flight take seconds when two workers share the cores, and the last ones are not counted.
_CLIENTS_A_MODEL = 16
_WARM_S = 3.0
_API_PROCESSES = 4


@dataclass(frozen=True)
class Round:
    """Loads of two models, each alone and then both together, always in the same order."""

    alone: tuple[Load, ...]
    together: tuple[Load, ...]
    #: CPU milliseconds per request of all processes
    cpu_ms_alone: tuple[float, ...]
    #: ... of both models together
    cpu_ms_together: float

    @property
    def shares(self) -> list[float]:
        """Ratio of each model's rate together to its rate alone."""
        return [_per_s(both) / _per_s(alone) for alone, both in zip(self.alone, self.together, strict=True)]

    @property
    def cpu_ratio(self) -> float:
        """CPU per request together ÷ CPU of the same mix of requests alone."""
        counts = [load.requests for load in self.together]
        expected_ms = sum(count * cpu_ms for count, cpu_ms in zip(counts, self.cpu_ms_alone, strict=True))
        return self.cpu_ms_together * sum(counts) / expected_ms


def two_workers(seconds: float, rounds: int) -> list[Row]:
    """Measure two workers, each with its own model, on one embedded service. Raises RuntimeError if a request fails."""
    workloads = workload.prepare(["tiny", "mobilenetv2"])
    contender = _TwoWorkers(workloads)
    with contender.run(workloads[0]) as running:
        folder = running.request.body.parent
        requests = [contender.request(work, running.request.url, folder) for work in workloads]
        for request in requests:
            first_answer(request, running.processes.log)
            closed(request, clients=_CLIENTS_A_MODEL, seconds=_WARM_S)
        found = [_round(running.processes, requests, seconds) for _ in range(rounds)]
    return two_worker_rows([work.name for work in workloads], found)


def two_worker_rows(models: Sequence[str], rounds: Sequence[Round]) -> list[Row]:
    """Create rows of medians: each model alone, each model together, and the ratios of both together."""
    rows = []
    for number, model in enumerate(models):
        alone = [one.alone[number] for one in rounds]
        cpu_ms = statistics.median(one.cpu_ms_alone[number] for one in rounds)
        rows.append(_row(model, "two workers, one at work", **_figures(alone), cpu_ms_per_image=cpu_ms))
        rows.append(_row(model, "two workers, both at work", **_figures([one.together[number] for one in rounds])))
    together = {
        "cpu_ms_per_image": statistics.median(one.cpu_ms_together for one in rounds),
        "cpu_to_alone": statistics.median(one.cpu_ratio for one in rounds),
        "shares_of_rate_alone": [statistics.median(shares) for shares in zip(*(one.shares for one in rounds), strict=True)],
        "sum_of_shares": statistics.median(sum(one.shares) for one in rounds),
        "images_per_s": statistics.median(sum(map(_per_s, one.together)) for one in rounds),
    }
    rows.append(_row(" + ".join(models), "two workers, both at work", **together))
    return rows


def checked_answers(seconds: float) -> list[Row]:
    """Measure four API processes with a client that checks every answer: see `bench.answer_check`."""
    (work,) = workload.prepare(["tiny"])
    contender = Ours("embedded-4-api", {}, {"api": {"workers": _API_PROCESSES}})
    with contender.run(work) as running:
        checked = run_module("bench.answer_check", str(work.folder), running.request.url, str(_CLIENTS), str(seconds))
    answers = checked["answers"]
    return [
        row(
            contender.name,
            contender.kind,
            work.name,
            "checked answers",
            clients=_CLIENTS,
            images_per_s=answers / checked["seconds"],
            p50_ms=checked["p50_ms"],
            p99_ms=checked["p99_ms"],
            answers=answers,
            wrong_answers=checked["wrong"],
            failed_requests=checked["errors"],
        )
    ]


class _TwoWorkers(Ours):
    """Service with a worker for each of two models, and one of each other part."""

    def __init__(self, workloads: Sequence[Workload]) -> None:
        super().__init__("embedded-2-workers", {}, {"models": [str(work.folder) for work in workloads]})
        self._workloads = workloads

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        server = [sys.executable, "server.py"]
        worker = [sys.executable, "-m", "celery", "--quiet", "-A", "tasks", "worker"]
        return [
            [*server, "broker"],
            [*server, "relay"],
            [*server, "api", "--port", str(port)],
            *([*worker, "-n", f"{work.name}@%h", "-Q", f"predict.{work.name}"] for work in self._workloads),
        ]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        return {"INFERENCE_CONFIG": str(self.write_config(workload, folder))}

    def fields(self, workload: Workload) -> dict[str, str]:
        return super().fields(workload) | {"model": workload.name}


def _round(processes: Processes, requests: Sequence[Request], seconds: float) -> Round:
    alone, cpu_ms_alone = [], []
    for request in requests:
        (load,), cpu_ms = _at_once(processes, [request], seconds)
        alone.append(load)
        cpu_ms_alone.append(cpu_ms)
    together, cpu_ms_together = _at_once(processes, requests, seconds)
    return Round(tuple(alone), tuple(together), tuple(cpu_ms_alone), cpu_ms_together)


def _at_once(processes: Processes, requests: Sequence[Request], seconds: float) -> tuple[list[Load], float]:
    """Run the loads concurrently; returns them, and the CPU milliseconds per request of all our processes."""
    for request in requests:
        wait_until_idle(request)
    before = sum(processes.cpu_s().values())
    with ThreadPoolExecutor(len(requests)) as pool:
        loads = list(pool.map(lambda request: closed(request, clients=_CLIENTS_A_MODEL, seconds=seconds), requests))
    used_s = sum(processes.cpu_s().values()) - before
    return loads, used_s * 1000 / sum(load.requests for load in loads)


def _row(model: str, load: str, **figures: object) -> Row:
    return row("embedded-2-workers", "ours", model, load, clients=_CLIENTS_A_MODEL, **figures)


def _figures(loads: Sequence[Load]) -> dict[str, float]:
    return {
        "images_per_s": statistics.median(map(_per_s, loads)),
        "p50_ms": statistics.median(load.p50_ms for load in loads),
        "p99_ms": statistics.median(load.p99_ms for load in loads),
    }


def _per_s(load: Load) -> float:
    return load.requests / load.seconds
