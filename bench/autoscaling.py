"""`python -m bench.autoscaling`: real workers, started and stopped by KEDA's rule on a recorded load.

The rule is the ScaledObject of deploy/kubernetes, evaluated by `bench.autoscaler`; the number of waiting tasks is read as KEDA
reads it (`ZCARD` of the waiting set), the age of the oldest as the metric has it. Workers are processes of `celery worker`, ended
by SIGTERM. The model waits 40 ms for each image in place of computing, as one on a device of its own would, so that several
workers on this machine do more than one. A start of a worker costs what it costs here; no pod is scheduled, no image pulled.

The load is that of a running service, as `bench.record_load` read it from its task records. The tasks that were accepted in a
second are sent at even distances within it, as asynchronous requests to a real API. The same load is then run with a fixed number
of workers: as many as the rule had at its peak. A table has both results. The exit code is 1 if a task was lost or refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

import urllib3
import yaml

from bench.autoscaler import Autoscaler, Rule
from bench.load_files import read_load
from bench.scaled_service import IMAGE, METADATA, Service, started
from bench.workload import ROOT, WORK
from inference.domain import TaskRecord, TaskStatus

#: Recorded by `bench.record_load`; its first lines say from what.
LOAD = Path(__file__).parent / "loads/client-mix.csv"
_SCALED_OBJECT = ROOT / "deploy/kubernetes/components/keda/scaler/scaled-object.yaml"
_TICK_S = 0.1
_SENDERS = 16
_END_TIMEOUT_S = 600.0
_HEADINGS = (
    "| workers | tasks | refused | lost | wait p50 s | p99 s | worker-seconds | most | from none | start s | late s |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Run:
    """A load and its result."""

    #: tasks that were accepted
    records: Sequence[TaskRecord | None]
    refused: int
    #: seconds that each worker process was there, from its start to its end
    worker_s: Sequence[float]
    #: number of workers after each change, by time
    workers: Sequence[tuple[float, int]]
    #: seconds until each worker had its model loaded
    start_s: Sequence[float]
    #: longest time by which a request was sent too late: this machine is busy with something else
    late_s: float
    duration_s: float

    @property
    def lost(self) -> int:
        """Accepted tasks that have no result."""
        return sum(record is None or record.status is not TaskStatus.SUCCEEDED for record in self.records)

    @property
    def waits_s(self) -> list[float]:
        """Seconds from acceptance to the start of the model, in ascending order."""
        return sorted((record.started_at_ms - record.created_at_ms) / 1000 for record in self.records if record is not None)

    @property
    def peak(self) -> int:
        return max(number for _, number in self.workers)

    @property
    def starts_from_zero(self) -> int:
        numbers = [0, *(number for _, number in self.workers)]
        return sum(before == 0 < after for before, after in itertools.pairwise(numbers))


class Load:
    """Tasks that are sent at their times, from a thread of its own."""

    def __init__(self, url: str, tasks_by_second: Sequence[int]) -> None:
        self._url = f"{url}/inference"
        self._times_s = [second + number / tasks for second, tasks in enumerate(tasks_by_second) for number in range(tasks)]
        self._http = urllib3.PoolManager(maxsize=_SENDERS, retries=False, timeout=30)
        image, metadata = ("image", ("image", IMAGE)), ("metadata", METADATA)
        self._body, content_type = urllib3.encode_multipart_formdata([image, metadata])
        self._headers = {"Content-Type": content_type, "Prefer": "respond-async"}
        self.task_ids: list[str] = []
        self.refused = 0
        #: longest time by which a request was sent too late
        self.late_s = 0.0
        self._thread = threading.Thread(target=self._send_all, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def _send_all(self) -> None:
        began_s = time.monotonic()
        with ThreadPoolExecutor(_SENDERS) as senders:
            for at_s in self._times_s:
                time.sleep(max(0.0, began_s + at_s - time.monotonic()))
                senders.submit(self._send, began_s + at_s)

    def _send(self, at_s: float) -> None:
        self.late_s = max(self.late_s, time.monotonic() - at_s)
        with suppress(urllib3.exceptions.HTTPError):
            answer = self._http.request("POST", self._url, body=self._body, headers=self._headers)
            if answer.status == HTTPStatus.ACCEPTED:
                self.task_ids.append(str(answer.json()["task_id"]))
                return
        self.refused += 1


def run(service: Service, decide: Callable[[int], int], tasks_by_second: Sequence[int]) -> Run:
    """Send the load, and let `decide` say how many workers there are, until all tasks have ended and no worker is left.

    Raises:
        RuntimeError: a worker ended by itself, or the end does not come.
    """
    began_s = time.monotonic()
    load = Load(service.url, tasks_by_second)
    load.start()
    last_s = began_s + len(tasks_by_second) + _END_TIMEOUT_S
    while not (load.is_over and not service.number and service.is_quiet and not service.figures()[0]):
        if time.monotonic() > last_s:
            raise RuntimeError(
                f"after {_END_TIMEOUT_S:g} s there are {service.number} workers, {service.figures()[0]:g} tasks wait"
            )
        service.scale(decide(service.number))
        service.look()
        time.sleep(_TICK_S)
    return Run(
        records=service.store.get_many(load.task_ids),
        refused=load.refused,
        worker_s=service.worker_s,
        workers=[(at_s - began_s, number) for at_s, number in service.changes],
        start_s=service.start_s,
        late_s=load.late_s,
        duration_s=time.monotonic() - began_s,
    )


#: Makes, for a service, the function from the present number of workers to the wanted one.
Decide = Callable[[Service], Callable[[int], int]]


def by_rule(rule: Rule, service: Service) -> Callable[[int], int]:
    """Decide as KEDA and the HorizontalPodAutoscaler do."""
    autoscaler = Autoscaler(rule, time.monotonic)
    return lambda workers: autoscaler.decide(workers, service.figures)


def fixed(number: int, seconds: float, service: Service) -> Callable[[int], int]:
    """Decide on the same number for so many seconds, and until no task waits."""
    end_s = time.monotonic() + seconds
    return lambda _workers: number if time.monotonic() < end_s or service.figures()[0] else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load by the rule and with a fixed number, and print a table."""
    options = _parser().parse_args(arguments)
    tasks_by_second = read_load(options.load)
    rule = Rule.of(yaml.safe_load(_SCALED_OBJECT.read_text(encoding="utf-8"))).faster(options.faster)
    rule = dataclasses.replace(rule, max_workers=options.max_workers)
    seconds = len(tasks_by_second)
    _run("prepared", options, [1], partial(fixed, 1, 1.0))  # converts the model, which the other runs take from the cache
    _print(_HEADINGS)
    scaled = _run("scaled", options, tasks_by_second, partial(by_rule, rule))
    _print(_as_row("by the rule", scaled))
    unchanged = _run("fixed", options, tasks_by_second, partial(fixed, scaled.peak, seconds))
    _print(_as_row(f"{scaled.peak} workers", unchanged))
    return 1 if any(one.lost or one.refused for one in (scaled, unchanged)) else 0


def _run(name: str, options: argparse.Namespace, tasks_by_second: Sequence[int], decide: Decide) -> Run:
    folder = WORK / "runs" / f"autoscaling-{name}-{int(time.time())}"
    folder.mkdir(parents=True)
    cache = {"INFERENCE_MODEL_FILES__CACHE_DIR": str(WORK / "model-files")}
    with started(folder, wait_s=options.image_ms / 1000, variables=cache, redis_url=options.redis) as service:
        return run(service, decide(service), tasks_by_second)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _as_row(name: str, done: Run) -> str:
    waits_s = done.waits_s
    p50_s, p99_s = (waits_s[int((len(waits_s) - 1) * share)] for share in (0.5, 0.99))
    start_s = statistics.median(done.start_s)
    return (
        f"| {name} | {len(done.records)} | {done.refused} | {done.lost} | {p50_s:.1f} | {p99_s:.1f} "
        f"| {sum(done.worker_s):.0f} | {done.peak} | {done.starts_from_zero} | {start_s:.1f} | {done.late_s:.1f} |"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.autoscaling", description="Scale real workers by KEDA's rule.")
    parser.add_argument("--load", type=Path, default=LOAD, metavar="FILE", help="written by bench.record_load")
    parser.add_argument("--faster", type=float, default=8.0, help="divide the times of the rule by this (default: 8)")
    parser.add_argument("--image-ms", type=float, default=40.0, help="time of the model for an image (default: 40)")
    parser.add_argument("--max-workers", type=int, default=4, help="most workers (default: 4)")
    parser.add_argument("--redis", metavar="URL", help="server of queue and records; default: an embedded one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
