"""Reader of event streams, as the HTML Standard describes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask.testing import FlaskClient
from support.contract import check_item


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: dict[str, Any]


class Events:
    """Stream of the test client."""

    def __init__(self, client: FlaskClient, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._path = path.partition("?")[0]
        self.response = client.get(path, headers=headers)
        assert (self.response.status_code, self.response.mimetype) == (200, "text/event-stream"), self.response
        self._texts = iter(self.response.response)
        assert next(self._texts) == b"retry: 1000\n\n"

    def next(self) -> Event:
        event = next(events_in(self._texts))
        check_item(self._path, "text/event-stream", event.data)
        return event

    def rest(self) -> list[Event]:
        """All further events of a stream that ends."""
        return list(events_in(self._texts))

    def text(self) -> bytes:
        """The next text, which may be a comment."""
        return next(self._texts)

    def has_ended(self) -> bool:
        """Nothing follows; if there is something, that is part of the failure."""
        assert list(self._texts) == []
        return True

    def close(self) -> None:
        self.response.close()


def events_in(texts: Iterator[bytes]) -> Iterator[Event]:
    """The events among texts that each are an event or a comment."""
    for text in texts:
        if not text.startswith(b":"):
            yield event_of(text)


def event_of(text: bytes) -> Event:
    assert text.endswith(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in text.strip().split(b"\n"))
    assert fields.keys() == {b"id", b"event", b"data"}
    return Event(fields[b"event"].decode(), fields[b"id"].decode(), orjson.loads(fields[b"data"]))


#: Opens a stream of a path, with headers; it is closed at the end of the test.
Watch = Callable[..., Events]
