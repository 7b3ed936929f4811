"""Text of event streams and of JSON Lines.

Format: HTML Living Standard, section 9.2, and jsonlines.org.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from api.events.streams import EventStream
from inference.errors import ServiceUnavailable

EVENT_STREAM = "text/event-stream"

#: Seconds without an event after which a comment is sent, so that proxies do not take the connection for idle.
HEARTBEAT_S = 15.0
_RETRY = b"retry: 1000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
#: Seconds after which a stream asks the task store again that did not answer.
PAUSE_S = 1.0
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class EventSource(Protocol):
    """Events of one stream."""

    @property
    def has_ended(self) -> bool:
        """Whether `new_events` has returned the last event."""

    def new_events(self) -> Iterator[bytes]:
        """Yield the encoded events since the last call; the first call, those of the state now. Raises ServiceUnavailable."""


def encode(document: Any) -> bytes:
    """Return JSON on one line."""
    return orjson.dumps(document, option=_OPTIONS)


def event(name: str, event_id: str, data: bytes) -> bytes:
    """Encode an event.

    Args:
        data: JSON on one line.
    """
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), name.encode(), data)


def event_stream(stream: EventStream, source: EventSource) -> Iterator[bytes]:
    """Yield the text of an event stream until its source has ended or the stream is closed."""
    yield _RETRY
    while True:
        try:
            yield from source.new_events()
        except ServiceUnavailable:
            yield _KEEP_ALIVE
            stream.wait(PAUSE_S)
        else:
            if source.has_ended or stream.is_closed:
                return
            if not stream.wait(HEARTBEAT_S):
                yield _KEEP_ALIVE
        if stream.is_gone:
            return
