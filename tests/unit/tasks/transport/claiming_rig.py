"""Consumer and producer on the claiming transport."""

from __future__ import annotations

import time
from typing import Any

import redis
from kombu import Connection, Consumer, Message, Queue
from support.waiting import until

#: Seconds in which nothing more comes, for a test that says so.
QUIET_S = 0.6


class Reader:
    """A consumer that takes what the transport gives it."""

    def __init__(self, connection: Connection, *queues: str, prefetch: int = 10, no_ack: bool = False) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        #: what `read` gave last
        self.taken: list[Message] = []
        channel = connection.default_channel
        self.consumer = Consumer(
            channel,
            [Queue(name, exchange="", routing_key=name) for name in queues],
            on_message=self.messages.append,
            no_ack=no_ack,
        )
        self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def read(self, count: int) -> list[Any]:
        """The bodies of the next `count`."""
        until(lambda: self._turn() or len(self.messages) >= count)
        self.taken = [self.messages.pop(0) for _ in range(count)]
        return [message.payload for message in self.taken]

    def reads_nothing(self) -> bool:
        until = time.monotonic() + QUIET_S
        while time.monotonic() < until:
            self._turn()
        return not self.messages

    def _turn(self) -> None:
        try:
            self.connection.drain_events(timeout=0.05)
        except TimeoutError:
            return


def send(connection: Connection, queue: str, *bodies: Any, **options: Any) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body, exchange="", routing_key=queue, declare=[Queue(queue, exchange="", routing_key=queue)], **options
            )


def unacked(client: redis.Redis, key_prefix: str) -> tuple[set[bytes], set[bytes]]:
    """Delivery tags in kombu's hash and in its index."""
    noted: Any = client.hkeys(f"{key_prefix}-unacked")
    indexed: Any = client.zrange(f"{key_prefix}-index", 0, -1)
    return set(noted), set(indexed)
