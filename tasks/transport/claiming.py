"""kombu's Redis transport with claims: one step takes messages from their lists and notes them as unacknowledged.

kombu itself pops a message and notes it afterwards: a worker that is killed in between loses it, and each message costs three
round trips. Here a worker waits for a token on the queue's *wake-up list* (`wake_up_key`), and claims with one script all
messages that its prefetch window allows. The token is empty and may get lost. A claim that leaves messages pushes a token again.
The window counts items, of which a message may carry many: else a few large messages would fill one worker while others are idle.
The data in Redis has kombu's own format, so that restoring, priorities, `purge`, Flower and workers with kombu's transport work
as before. Producers of this service push a token; messages of other clients are noticed after `_POLL_INTERVAL_S`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from time import monotonic, time
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as stock
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from inference.broker.envelope import ITEMS_HEADER
from inference.broker.redis import QUEUE_LISTS, wake_up_key
from inference.broker.rejected import UNREADABLE

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 0.25
#: How long acknowledgements wait for others. Their tasks have ended, so nothing runs twice if the worker dies meanwhile.
_ACKNOWLEDGE_WITHIN_S = 0.05
#: Time after the last claim that found several owners in which a worker holds fewer items, seconds; and their share.
_SHARED_FOR_S, _SHARE_OF_WINDOW = 5.0, 0.5
#: More items than any batch has.
_MAX_ITEMS = 1024
_CLAIM = (Path(__file__).parent / "claim.lua").read_text(encoding="utf-8")


class ClaimingQoS(stock.QoS):  # type: ignore[misc] # kombu has no types
    """Prefetch window that knows the messages that a claim has noted already, and acknowledges many at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: tags of messages that the claim has noted and that are not delivered yet, in order; the values have no meaning
        self.claimed: dict[str, None] = {}
        self._acknowledged: list[str] = []
        self._will_flush = False
        #: number of items of each message that is not acknowledged, by delivery tag
        self._items: dict[str, int] = {}
        self._shared_until = 0.0

    def note_owners(self, *, are_several: bool) -> None:
        """Note whether several owners have waiting messages: then this worker holds fewer items for some time.

        The turns end with the claim. A task of an owner with few tasks waits behind all that are held, of whatever owner.
        """
        if are_several:
            self._shared_until = monotonic() + _SHARED_FOR_S

    def can_consume(self) -> bool:
        return self.can_consume_max_estimate() != 0

    def can_consume_max_estimate(self) -> int | None:
        """Return how many more items fit into the window; None: there is no limit."""
        if not self.prefetch_count:
            return None
        share = _SHARE_OF_WINDOW if monotonic() < self._shared_until else 1.0
        return max(0, int(self.prefetch_count * share) - sum(self._items.values()))

    def append(self, message: Any, delivery_tag: str) -> None:
        self._items[delivery_tag] = _item_count(message.headers)
        if delivery_tag in self.claimed:
            del self.claimed[delivery_tag]
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self._items.pop(delivery_tag, None)
        super().reject(delivery_tag, requeue)

    def ack(self, delivery_tag: str) -> None:
        self._items.pop(delivery_tag, None)
        virtual.QoS.ack(self, delivery_tag)
        self._acknowledge(delivery_tag)

    def confirm_delivery(self, delivery_tag: str) -> None:
        """Acknowledge a message if its consumer does not, for example the consumers of remote control's answers."""
        if delivery_tag in self.claimed:
            del self.claimed[delivery_tag]
            self._acknowledge(delivery_tag)

    def _acknowledge(self, delivery_tag: str) -> None:
        self._acknowledged.append(delivery_tag)
        hub = get_event_loop()
        if hub is None:
            self.flush_acknowledged()
        elif not self._will_flush:
            self._will_flush = True
            hub.call_later(_ACKNOWLEDGE_WITHIN_S, self.flush_acknowledged)

    def flush_acknowledged(self) -> None:
        """Send the waiting acknowledgements; if that fails, they are sent with the next ones."""
        self._will_flush = False
        if tags := self._acknowledged[:]:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()
            del self._acknowledged[: len(tags)]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Return unacknowledged messages to their queues, if the connection still allows it.

        Never raises: kombu calls it after a connection has failed, when an error would end the worker. Messages that stay noted
        in Redis are not lost: the sweeper queues a task again whose message is lost.
        """
        # The base class forgets acknowledged messages; they must be removed from Redis too.
        try:
            self.flush_acknowledged()
        except Exception as error:  # noqa: BLE001 also AttributeError: the channel may have lost its connection already
            logger.warning(
                "acknowledgements are lost with the connection (%r); their messages, whose tasks ended, come again", error
            )
        try:
            super().restore_unacked_once(stderr)
        except Exception as error:  # noqa: BLE001 as above
            logger.warning("unacknowledged messages cannot be returned to their queues (%r); they are queued again later", error)


class ClaimedMessage(virtual.Message):  # type: ignore[misc] # kombu has no types
    """A message. If kombu cannot read it, it has no headers and no body, and the consumer puts it aside.

    `_raw` is the message as it was in the queue.
    """

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            if not isinstance(payload.get("headers") or {}, dict):
                raise TypeError("its headers are not a mapping")  # noqa: TRY301 handled like the errors that kombu raises
            super().__init__(payload, channel=channel, **options)
        except Exception as error:  # noqa: BLE001 a message of another client can raise any error
            logger.warning("a message cannot be read: %r", error)
            super().__init__(_unreadable(payload, payload["properties"]), channel=channel, **options)
            self._raw = payload


class ClaimingChannel(stock.Channel):  # type: ignore[misc] # kombu has no types
    """Waits for a token on the wake-up list, or for `_POLL_INTERVAL_S`, and claims messages."""

    QoS = ClaimingQoS
    Message = ClaimedMessage
    #: limit for the items of one claim, so that other workers get some too
    max_claim = 32
    from_transport_options = (*stock.Channel.from_transport_options, "max_claim")

    @cached_property
    def _claim_script(self) -> Any:
        return self.client.register_script(_CLAIM)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the request for a token; `_brpop_read` reads the answer."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command("BRPOP", *map(self._wake_up_list, queues), timeout or _POLL_INTERVAL_S)

    def _brpop_read(self, **options: Any) -> bool:
        """Claim messages, whether a token came or the wait timed out."""
        try:
            self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next turn connects again
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        claimed = [] if self._closing else self._claim()
        if not claimed:
            raise stock.Empty
        self._queue_cycle.rotate(claimed[-1][0])
        self._deliver_all(claimed)
        return True

    def _claim(self) -> list[tuple[str, Any]]:
        """Claim as many messages as the prefetch window allows; return the queue and the message of each."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        window = self.qos.can_consume_max_estimate()
        limit = self.max_claim if window is None else min(window, self.max_claim)
        lists = [key for queue in queues for key in (self._wake_up_list(queue), *self._lists(queue))]
        # kombu's client adds its global prefix to the first key of a script, and to no other.
        keys = [self.unacked_key, self.global_keyprefix + self.unacked_index_key, *lists]
        are_several, *found = self._claim_script(keys, [time(), limit, *queues])
        self.qos.note_owners(are_several=bool(are_several))
        claimed = []
        for name, tag, text in zip(*[iter(found)] * 3, strict=True):
            queue, delivery_tag = bytes_to_str(name), bytes_to_str(tag)
            if delivery_tag:
                self.qos.claimed[delivery_tag] = None
            claimed.append((queue, _read(text, delivery_tag, queue)))
        return claimed

    def _lists(self, queue: str) -> list[str]:
        return [self.global_keyprefix + self._q_for_pri(queue, step) for step in self.priority_steps]

    def _wake_up_list(self, queue: str) -> str:
        return wake_up_key(self.global_keyprefix + queue)

    def _size(self, queue: str) -> int:
        return self._count(queue)

    def _purge(self, queue: str) -> int:
        return self._count(queue, "delete")

    def _count(self, queue: str, *arguments: str) -> int:
        lists = self._lists(queue)
        with self.conn_or_acquire() as client:
            return int(client.eval(QUEUE_LISTS, len(lists), *lists, *arguments))

    def _deliver_all(self, claimed: list[tuple[str, Any]]) -> None:
        try:
            for queue, message in claimed:
                self.connection._deliver(message, queue)  # noqa: SLF001 as the base class does
                self.qos.confirm_delivery(message["properties"]["delivery_tag"])
        finally:
            # If a consumer failed, the messages that are not delivered go back at once.
            while self.qos.claimed:
                tag, _ = self.qos.claimed.popitem()
                self.qos.restore_by_tag(tag)


def _read(text: bytes | str, tag: str, queue: str) -> Any:
    """Parse a message.

    Args:
        tag: its delivery tag; empty if the claim found none.
    """
    try:
        text = bytes_to_str(text)
        if tag:
            return loads(text)
    except Exception as error:  # noqa: BLE001 a message of another client can raise any error
        logger.warning("a message cannot be read: %r", error)
    delivery = {"exchange": "", "routing_key": queue}
    return _unreadable(text, {"delivery_tag": tag or str(uuid.uuid4()), "delivery_info": delivery})


def _unreadable(content: Any, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Make a message that kombu can pass on in place of one that it cannot read."""
    known = {"delivery_tag": properties["delivery_tag"], "delivery_info": properties["delivery_info"]}
    return {"properties": known, UNREADABLE: content}


def _item_count(headers: Mapping[str, Any]) -> int:
    """Return the number of items in a message's header; 1 if the header has no valid number."""
    count = headers.get(ITEMS_HEADER)
    return count if type(count) is int and 1 <= count <= _MAX_ITEMS else 1


class ClaimingTransport(stock.Transport):  # type: ignore[misc] # kombu has no types
    Channel = ClaimingChannel


class ClaimingSentinelChannel(ClaimingChannel, stock.SentinelChannel):  # type: ignore[misc] # kombu has no types
    from_transport_options = (*stock.SentinelChannel.from_transport_options, "max_claim")


class ClaimingSentinelTransport(stock.SentinelTransport):  # type: ignore[misc] # kombu has no types
    Channel = ClaimingSentinelChannel


def install() -> None:
    """Make kombu use this transport for the Redis connections of this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{ClaimingTransport.__name__}"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:{ClaimingSentinelTransport.__name__}"
