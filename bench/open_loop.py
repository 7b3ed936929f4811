"""Open loop: Poisson arrivals at a given rate, independent of the answers to earlier requests.

`python -m bench.open_loop URL BODY CONTENT_TYPE RATE SECONDS` prints the figures as JSON. A latency is measured from the moment
at which the request was due, so that the figures include requests that a stalled service delayed (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import uvloop

from bench.closed_loop import Load
from bench.http_client import Connections


async def _run(url: str, body: bytes, content_type: str, rate_per_s: float, seconds: float) -> Load:
    connections = Connections(url)
    latencies_s: list[float] = []
    errors = 0

    async def one(due: float) -> None:
        nonlocal errors
        try:
            await connections.post(body, content_type)
        except (OSError, EOFError, ValueError):
            errors += 1
        latencies_s.append(time.perf_counter() - due)

    began = due = time.perf_counter()
    tasks = []
    arrivals = random.Random(0)  # noqa: S311 the same arrivals for all contenders
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
        due += arrivals.expovariate(rate_per_s)
    await asyncio.gather(*tasks)
    ended = time.perf_counter()
    connections.close()
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1000
    return Load(len(tasks), ended - began, float(p50), float(p99), errors)


if __name__ == "__main__":
    url, body, content_type, rate, seconds = sys.argv[1:]
    load = uvloop.run(_run(url, Path(body).read_bytes(), content_type, float(rate), float(seconds)))
    sys.stdout.write(json.dumps(asdict(load)))
