"""A batch as JSON Lines: its items as they end, then its counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from api.events.batch_subject import BatchItems, BatchSubject
from api.events.encoding import HEARTBEAT_S, PAUSE_S, encode
from api.events.streams import EventStream
from inference.errors import ServiceUnavailable

JSON_LINES = "application/jsonl"


def batch_lines(stream: EventStream, subject: BatchSubject, items: BatchItems, timeout_s: float) -> Iterator[bytes]:
    """Yield a line for each item when it has ended, and one with the counts at the end of the batch, or after `timeout_s`."""
    ends_at_s = time.monotonic() + timeout_s
    yield b""  # sends the head of the answer
    while True:
        pause_s = HEARTBEAT_S
        try:
            for _, text in items.new_items():
                yield text + b"\n"
        except ServiceUnavailable:
            pause_s = PAUSE_S
        left_s = ends_at_s - time.monotonic()
        if items.are_all_sent or stream.is_closed or left_s <= 0:
            break
        stream.wait(min(left_s, pause_s))
    head = subject.head()
    yield encode(head if items.are_all_sent else head | {"status": "running"}) + b"\n"
