"""Acknowledgements of the claiming transport are sent many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from claiming_rig import Reader, send, unacked
from kombu import Connection
from kombu.asynchronous import Hub, set_event_loop
from support.waiting import until


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(None)


class TestOnAMainLoop:
    @pytest.mark.usefixtures("hub")
    def test_the_window_opens_before_acknowledgements_are_sent(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        send(connect(), queue, *range(3))
        reader = Reader(connect(max_claim=2), queue, prefetch=2)
        reader.read(2)
        first, second = reader.taken
        first.ack()
        assert len(unacked(redis_client, key_prefix)[0]) == 2
        assert reader.read(1) == [2]
        held = {message.delivery_tag.encode() for message in (first, second, *reader.taken)}
        assert unacked(redis_client, key_prefix) == (held, held)

    def test_they_are_sent_soon(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str, hub: Hub
    ) -> None:
        send(connect(), queue, *range(3))
        reader = Reader(connect(), queue)
        reader.read(3)
        for number, message in enumerate(reader.taken):
            message.ack()
            until(lambda left=2 - number: hub.fire_timers() and len(unacked(redis_client, key_prefix)[0]) == left)  # type: ignore[misc]
        assert unacked(redis_client, key_prefix) == (set(), set())

    @pytest.mark.usefixtures("hub")
    def test_they_go_before_the_rest_is_given_back(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
    ) -> None:
        send(connect(), queue, "ended", "left")
        reader = Reader(connect(), queue)
        reader.read(2)
        reader.taken[0].ack()
        reader.connection.release()
        assert redis_client.llen(queue) == 1
        assert Reader(connect(), queue).read(1) == ["left"]

    @pytest.mark.usefixtures("hub")
    def test_where_the_connection_breaks_they_go_with_the_next(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        send(connect(), queue, "ended")
        reader = Reader(connect(), queue)
        reader.read(1)
        reader.taken[0].ack()
        qos = reader.consumer.channel.qos
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qos, "pipe_or_acquire", _broken)
            with pytest.raises(redis.ConnectionError):
                qos.flush_acknowledged()
        qos.restore_unacked_once()
        assert unacked(redis_client, key_prefix) == (set(), set())


def _broken(*_: Any) -> Any:
    raise redis.ConnectionError("the connection is lost")
