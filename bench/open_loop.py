"""Requests that arrive when they arrive, whether earlier ones are answered or not: Poisson arrivals at a given rate.

`python -m bench.open_loop URL BODY CONTENT_TYPE RATE SECONDS` prints the figures as JSON. A latency runs from the moment at which
the request was due, so that a service that stalls is charged for those that could not even be sent (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bench.closed_loop import Load


class _Connections:
    """Keep-alive connections, as many as are needed at once."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._host, self._port, self._request = host, port, request
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self) -> bool:
        """Whether the answer was a 200."""
        connection = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        reader, writer = connection
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(length)
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._idle.append(connection)
        return head.split(b" ", 2)[1] == b"200"


async def _run(url: str, body: bytes, content_type: str, rate_per_s: float, seconds: float) -> Load:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    connections = _Connections(host, port, head.encode() + body)
    latencies_s: list[float] = []
    errors = 0

    async def one(due: float) -> None:
        nonlocal errors
        try:
            is_good = await connections.send()
        except (OSError, asyncio.IncompleteReadError):
            is_good = False
        errors += not is_good
        latencies_s.append(time.perf_counter() - due)

    began = due = time.perf_counter()
    tasks = []
    arrivals = random.Random(0)  # noqa: S311 the same arrivals for everyone
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
        due += arrivals.expovariate(rate_per_s)
    await asyncio.gather(*tasks)
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1000
    return Load(len(tasks), time.perf_counter() - began, float(p50), float(p99), errors)


if __name__ == "__main__":
    url, body, content_type, rate, seconds = sys.argv[1:]
    load = asyncio.run(_run(url, Path(body).read_bytes(), content_type, float(rate), float(seconds)))
    sys.stdout.write(json.dumps(asdict(load)))
