"""API, worker and relay without a supervisor, and the load that runs during a fault."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from support.digits import METADATA
from support.parts import Parts

#: A dead process's tasks are soon another's.
SHORT_LEASES: dict[str, Any] = {
    "models": ["models/digits"],
    "task_store": {"lease_s": 2, "requeue_lost_after_s": 1},
    "worker": {"max_batch_size": 8},
    "relay": {"reclaim_after_s": 2, "max_backoff_s": 1},
}
IMAGE = np.zeros((8, 8, 1), "<f4").tobytes()
_PARTS = ("api", "worker", "relay")
_LOAD_THREADS = 2
_LOAD_INTERVAL_S = 0.05


def picture(size: int) -> bytes:
    """A PNG that takes about as many bytes as its pixels."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@contextmanager
def running_parts(folder: Path, settings: Mapping[str, Any], *, with_broker: bool = False) -> Iterator[Parts]:
    """One of each part on these settings, ready to serve; the embedded broker too where that is asked for."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(folder / "data")} | dict(settings)), encoding="utf-8")
    parts = Parts(folder, config, {})
    try:
        if with_broker:
            parts.start_broker()
        parts.start_worker("worker")
        parts.start_relay("relay")
        parts.start_api()
        parts.wait_ready()
        yield parts
    finally:
        parts.stop_all()


def pids(parts: Parts) -> Mapping[str, int]:
    """The process ids by part; fails where one has ended."""
    parts.assert_running()
    return {name: parts.pid(name) for name in _PARTS}


def succeeds(parts: Parts) -> bool:
    """Whether a request is served now; fails where a part has ended."""
    parts.assert_running()
    return parts.post(IMAGE, metadata=METADATA).ok


class Load:
    """Asynchronous requests at a steady rate, with any answers."""

    def __init__(self, parts: Parts) -> None:
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        #: tasks that errors name
        self.named: set[str] = set()
        self._parts = parts
        self._stopping = threading.Event()

    @contextmanager
    def run(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send) for _ in range(_LOAD_THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(120)

    def _send(self) -> None:
        while not self._stopping.wait(_LOAD_INTERVAL_S):
            answer = self._parts.post(IMAGE, metadata=METADATA, mode="async")
            self.statuses.add(answer.status_code)
            if answer.ok:
                self.accepted.append(answer.json()["task_id"])
            elif "task_id" in answer.json():
                self.named.add(answer.json()["task_id"])
