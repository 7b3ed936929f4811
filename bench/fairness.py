"""`python -m bench.fairness`: latency of one owner alone, and while another owner floods the service.

Both owners have 64 clients. Those of `lab` send the next request after the answer to the previous one. Those of `flood` send
small pictures without waiting for results, and after a refusal wait as long as `Retry-After` says, so that a long queue of its
tasks waits all the time. P9 asks for a p99 of `lab` beside the flood of at most twice its p99 alone. The embedded servers are
measured, or with `--redis URL` another server for records and queue. The exit code is 1 if the ratio is larger.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import urllib3
from PIL import Image

from bench import closed_loop, workload
from bench.closed_loop import Load
from bench.contenders import Request
from bench.http_client import Connections
from bench.with_keys import OursWithKeys
from bench.workload import Workload

CLIENTS = 64
#: Largest ratio of the p99 beside a flood to the p99 alone.
LARGEST_RATIO = 2.0
_FILL_TIMEOUT_S = 60.0
_LOOK_INTERVAL_S = 0.2
_WARM_S = 5.0


class _Flood:
    """Clients of the other owner, in a thread of their own."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._connections = Connections(url)
        self._request = _small_picture(url, headers | {"Prefer": "respond-async"})
        self._loop = asyncio.new_event_loop()
        self._clients = self._loop.create_task(self._send_all())
        self._thread = threading.Thread(target=self._run)
        self.accepted = self.refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._clients.cancel)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._clients)
        self._connections.close()
        self._loop.close()

    async def _send_all(self) -> None:
        await asyncio.gather(*(self._send() for _ in range(CLIENTS)))

    async def _send(self) -> None:
        while True:
            try:
                answer = await self._connections.send(self._request)
            except (OSError, EOFError, ValueError):
                continue
            if answer.status == HTTPStatus.ACCEPTED:
                self.accepted += 1
                continue
            self.refused += 1
            await asyncio.sleep(float(answer.headers.get(b"retry-after", 1)))


@dataclass(frozen=True)
class _Round:
    alone: Load
    beside: Load
    #: tasks of the other owner that waited when the second load began
    waiting: int
    accepted: int
    refused: int

    @property
    def ratio(self) -> float:
        return self.beside.p99_ms / self.alone.p99_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. The exit code is 1 if the ratio is over `LARGEST_RATIO`."""
    options = _parser().parse_args(arguments)
    (work,) = workload.prepare([options.model])
    rounds = []
    for number in range(options.rounds):
        rounds.append(_measure(work, options))
        _print(_as_text(f"round {number + 1}", rounds[-1]))
    ratio = statistics.median(found.ratio for found in rounds)
    _print(f"p99 beside the flood ÷ p99 alone: {ratio:.2f} (at most {LARGEST_RATIO:g})")
    return 0 if ratio <= LARGEST_RATIO else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description="Compare one owner alone and beside a flood.")
    parser.add_argument("--model", default="photo", choices=["tiny", "mobilenetv2", "photo"])
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each load (default: 30)")
    parser.add_argument("--rounds", type=int, default=3, help="the median ratio counts (default: 3)")
    parser.add_argument("--backlog", type=int, default=10_000, help="tasks of the flood that wait at first (default: 10000)")
    parser.add_argument("--redis", metavar="URL", help="server for records and queue; default: an embedded one")
    return parser


def _measure(work: Workload, options: argparse.Namespace) -> _Round:
    depth = 4 * options.backlog
    settings: dict[str, object] = {"limits": {"max_queue_depth": depth}, "deadlines": {"async_s": 3600}}
    if options.redis:
        settings["broker"] = {"url": options.redis}
    service = OursWithKeys("fairness", settings, ("lab", "flood"))
    with service.run(work) as running:
        request = running.request
        _load(request, _WARM_S)
        alone = _load(request, options.seconds)
        with _flooded(service, request, options.backlog) as (flood, waiting):
            _load(request, _WARM_S)  # the first requests wait behind all that the worker holds
            beside = _load(request, options.seconds)
    return _Round(alone, beside, waiting, flood.accepted, flood.refused)


def _load(request: Request, seconds: float) -> Load:
    return closed_loop.run(request, clients=CLIENTS, seconds=seconds)


@contextmanager
def _flooded(service: OursWithKeys, request: Request, backlog: int) -> Iterator[tuple[_Flood, int]]:
    """Run the flood; the block begins when `backlog` of its tasks wait, or when the service refuses more."""
    status = request.url.removesuffix(service.path) + "/status"
    with _Flood(request.url, service.headers("flood")) as flood, urllib3.PoolManager() as http:
        until = time.monotonic() + _FILL_TIMEOUT_S
        waiting = 0
        while waiting < backlog and not flood.refused and time.monotonic() < until:
            time.sleep(_LOOK_INTERVAL_S)
            with contextlib.suppress(KeyError, ValueError):
                models = http.request("GET", status, headers=request.headers).json()["models"]
                waiting = max(model["queue"]["depth"] for model in models)
        yield flood, waiting


def _small_picture(url: str, headers: dict[str, str]) -> bytes:
    """Return a whole request with a picture that takes next to no time to send and decode."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    body, content_type = urllib3.encode_multipart_formdata({"image": ("black.png", picture.getvalue(), "image/png")})
    parts = urlsplit(url)
    lines = {"Host": parts.netloc, "Content-Type": content_type, "Content-Length": str(len(body))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _as_text(name: str, found: _Round) -> str:
    def figures(load: Load) -> str:
        rate_per_s = (load.requests - load.errors) / load.seconds
        return f"p50 {load.p50_ms:.0f} ms, p99 {load.p99_ms:.0f} ms, {rate_per_s:.0f} a second, {load.errors} refused or failed"

    return (
        f"{name}: alone {figures(found.alone)}\n"
        f"{' ' * len(name)}  beside {figures(found.beside)}\n"
        f"{' ' * len(name)}  flood: {found.waiting} tasks waited at first, {found.accepted} accepted, {found.refused} refused\n"
        f"{' ' * len(name)}  ratio {found.ratio:.2f}"
    )


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
