"""Load of the overload table: requests arrive at a given rate, independent of answers, and each outcome is recorded.

`python -m bench.offered_load URL BODY CONTENT_TYPE RATE SECONDS [polite]` prints an `Offered` as JSON. Arrivals are Poisson. A
refused client gives up; a polite one tries again after the time in `Retry-After`, until it is accepted. Probes request
`/health/live` during the load. Times are seconds since the first request was due; a latency is measured from the moment at
which the request was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin

import uvloop

from bench.http_client import Connections

_PROBE_INTERVAL_S = 0.05


@dataclass
class Sent:
    """A request and its answer; status 0 if there was none."""

    due_s: float
    latency_s: float
    status: int
    #: seconds in `Retry-After`; 0 without it
    retry_after_s: float = 0.0
    #: number of earlier tries
    tries: int = 0


@dataclass
class Offered:
    """Figures of one load."""

    requests: list[Sent] = field(default_factory=list)
    #: latencies of /health/live
    probes: list[Sent] = field(default_factory=list)
    #: begin of the load, by the clock that all processes of the machine share
    began_monotonic_s: float = 0.0
    #: CPU seconds of the load generator itself
    cpu_s: float = 0.0
    took_s: float = 0.0


class _Load:
    def __init__(self, url: str, body: bytes, content_type: str, *, seconds: float, polite: bool) -> None:
        self._targets = Connections(url)
        self._live = Connections(urljoin(url, "/health/live"))
        self._body = body
        self._content_type = content_type
        self._seconds = seconds
        self._began = time.perf_counter()
        self._polite = polite
        self._open: set[asyncio.Task[object]] = set()
        self.found = Offered()

    async def run(self, rate_per_s: float) -> Offered:
        self._began = time.perf_counter()
        self.found.began_monotonic_s = time.monotonic()
        probing = asyncio.create_task(self._probe())
        arrivals = random.Random(0)  # noqa: S311 the same arrivals each time
        due = 0.0
        while due < self._seconds:
            await asyncio.sleep(max(0.0, due - self._now()))
            self._begin(self._arrive(due))
            due += arrivals.expovariate(rate_per_s)
        await probing
        while self._open:
            await asyncio.wait(self._open)
        self.found.took_s = self._now()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.found.cpu_s = used.ru_utime + used.ru_stime
        return self.found

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _begin(self, what: object) -> None:
        task = asyncio.ensure_future(what)  # type: ignore[call-overload]
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _arrive(self, due: float) -> None:
        sent = await self._send(due, tries=0)
        while self._polite and sent.retry_after_s:
            again = self._now() + sent.retry_after_s
            await asyncio.sleep(sent.retry_after_s)
            sent = await self._send(again, tries=sent.tries + 1)

    async def _send(self, due: float, *, tries: int) -> Sent:
        status, wait_s = 0, 0.0
        with contextlib.suppress(OSError, EOFError, ValueError):
            answer = await self._targets.try_post(self._body, self._content_type)
            status = answer.status
            wait_s = float(answer.headers.get(b"retry-after", 0)) if status == HTTPStatus.TOO_MANY_REQUESTS else 0.0
        sent = Sent(due, self._now() - due, status, wait_s, tries)
        self.found.requests.append(sent)
        return sent

    async def _probe(self) -> None:
        due = 0.0
        while due < self._seconds:
            await asyncio.sleep(max(0.0, due - self._now()))
            self._begin(self._probe_once(due))
            due += _PROBE_INTERVAL_S

    async def _probe_once(self, due: float) -> None:
        try:
            status = (await self._live.get()).status
        except (OSError, EOFError, ValueError):
            status = 0
        self.found.probes.append(Sent(due, self._now() - due, status))


def main() -> None:
    url, body, content_type, rate, seconds, *polite = sys.argv[1:]

    data = Path(body).read_bytes()

    async def run() -> Offered:
        load = _Load(url, data, content_type, seconds=float(seconds), polite=bool(polite))
        return await load.run(float(rate))

    sys.stdout.write(json.dumps(asdict(uvloop.run(run()))))


if __name__ == "__main__":
    main()
