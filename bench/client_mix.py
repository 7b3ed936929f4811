"""`python -m bench.client_mix URL IMAGE`: a day of different clients in four minutes, for `bench.record_load`.

people     12, one more every 8 s: send an image, wait for its answer, look at it for 1.5 s on average; leave after 150 s
program    from 40 s to 110 s: a batch of 40 images, and after its answer a pause of 2 s
cameras    from 60 s to 110 s: 25 asynchronous requests a second, at times that do not depend on the service
nobody     from 150 s to 210 s
import     from 210 s to 230 s: 8 connections, each an asynchronous request every 0.1 s
one user   from 230 s to 250 s: an image about every half second
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import urllib3

_PEOPLE, _PEOPLE_APART_S, _LOOK_S, _PEOPLE_END_S = 12, 8.0, 1.5, 150.0
BATCH, _BATCH_PAUSE_S = 40, 2.0
_CAMERAS_PER_S = 25.0
_IMPORTERS, _IMPORT_PAUSE_S = 8, 0.1
_LAST_PAUSE_S = 0.5


class Clients:
    """Clients of a service, each a thread.

    Args:
        model: default: that of the service.
        faster: divides all times but those of the service.
    """

    def __init__(self, url: str, image: bytes, *, model: str | None = None, faster: float = 1.0) -> None:
        self._url = url
        self._image = image
        self._fields = [("model", model)] if model else []
        self._faster = faster
        self._http = urllib3.PoolManager(maxsize=64, retries=False, timeout=60)
        self._began_s = time.monotonic()
        self._threads: list[threading.Thread] = []
        #: answers by status; 0: there was none
        self.answers: Counter[int] = Counter()
        #: requests of `BATCH` images among them
        self.batches = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send everything, and wait for the last answer."""
        for number in range(_PEOPLE):
            self._start(number * _PEOPLE_APART_S, _PEOPLE_END_S, self._send, lambda chance: chance.expovariate(1 / _LOOK_S))
        self._start(40, 110, self._send_batch, lambda _: _BATCH_PAUSE_S)
        self._start(60, 110, self._send_apart, lambda chance: chance.expovariate(_CAMERAS_PER_S))
        for _ in range(_IMPORTERS):
            self._start(210, 230, self._send_async, lambda _: _IMPORT_PAUSE_S)
        self._start(230, 250, self._send, lambda chance: chance.expovariate(1 / _LAST_PAUSE_S))
        while self._threads:
            self._threads.pop().join()

    def _start(self, from_s: float, to_s: float, send: Callable[[], None], pause: Callable[[random.Random], float]) -> None:
        chance = random.Random(len(self._threads))  # noqa: S311 the same pauses each time

        def client() -> None:
            self._sleep_until(from_s)
            while self._now_s() < to_s:
                send()
                time.sleep(pause(chance) / self._faster)

        self._threads.append(thread := threading.Thread(target=client))
        thread.start()

    def _now_s(self) -> float:
        return (time.monotonic() - self._began_s) * self._faster

    def _sleep_until(self, at_s: float) -> None:
        time.sleep(max(0.0, at_s - self._now_s()) / self._faster)

    def _send(self) -> None:
        self._post("/inference", 1)

    def _send_async(self) -> None:
        self._post("/inference", 1, {"Prefer": "respond-async"})

    def _send_apart(self) -> None:
        threading.Thread(target=self._send_async).start()

    def _send_batch(self) -> None:
        self.batches += 1
        self._post("/inference/batch", BATCH)

    def _post(self, path: str, images: int, headers: dict[str, str] | None = None) -> None:
        files = [("image", (f"{number}.png", self._image)) for number in range(images)]
        body, content_type = urllib3.encode_multipart_formdata([*files, *self._fields])
        status = 0
        try:
            status = self._http.request(
                "POST", f"{self._url}{path}", body=body, headers={"Content-Type": content_type, **(headers or {})}
            ).status
        except urllib3.exceptions.HTTPError as error:
            sys.stderr.write(f"{path}: {error}\n")
        with self._lock:
            self.answers[status] += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the clients, and print the answers by status; the exit code is 1 if one was neither 200 nor 202."""
    parser = argparse.ArgumentParser(prog="python -m bench.client_mix", description="Run clients of different kinds.")
    parser.add_argument("url", help="of the API")
    parser.add_argument("image", type=Path, help="file that all of them send")
    parser.add_argument("--model", metavar="NAME", help="default: the service's")
    parser.add_argument("--faster", type=float, default=1.0, help="divide the times of the clients by this (default: 1)")
    options = parser.parse_args(arguments)
    clients = Clients(options.url.rstrip("/"), options.image.read_bytes(), model=options.model, faster=options.faster)
    clients.run()
    sys.stdout.write(f"{dict(clients.answers)}\n")
    return 0 if clients.answers.keys() <= {HTTPStatus.OK, HTTPStatus.ACCEPTED} else 1


if __name__ == "__main__":
    sys.exit(main())
