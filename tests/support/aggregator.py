"""An ensemble's aggregator: the answers of several pipelines to one request, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Self

import orjson
from kafka import KafkaConsumer

_POLL_MS = 200


class Aggregator:
    """Reads a topic of results and gives out a group for each request id.

    Args:
        min_messages: a group is given out once it has so many,
        time_limit_s: or once its first message came so long ago.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        min_messages: int,
        time_limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: (request id, messages), as they were given out
        self.groups: list[tuple[str, list[dict[str, Any]]]] = []
        self._consumer_options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "group_id": f"aggregator-of-{topic}",
            "auto_offset_reset": "earliest",
        }
        self._topic = topic
        self._min_messages = min_messages
        self._time_limit_s = time_limit_s
        self._clock = clock
        #: by request id: when the first message came, and all of them
        self._open: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        self._seen: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def waiting(self, request_id: str) -> int:
        """Messages of a group that was not given out yet."""
        _, messages = self._open.get(request_id, (0.0, []))
        return len(messages)

    def _run(self) -> None:
        with closing(KafkaConsumer(self._topic, **self._consumer_options)) as consumer:
            while not self._ending.is_set():
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        self._take(orjson.loads(record.value))
                self._give_out()

    def _take(self, message: dict[str, Any]) -> None:
        if message["task_id"] in self._seen:  # results come at least once
            return
        self._seen.add(message["task_id"])
        _, messages = self._open.setdefault(message["request_id"], (self._clock(), []))
        messages.append(message)

    def _give_out(self) -> None:
        now = self._clock()
        for request_id, (began, messages) in list(self._open.items()):
            if len(messages) >= self._min_messages or now - began > self._time_limit_s:
                del self._open[request_id]
                self.groups.append((request_id, messages))
