"""Flower's page of queues, with the messages of owners: Flower itself counts only kombu's lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inference.broker.redis import QUEUE_LISTS


def count_messages_of_owners() -> None:
    """Let Flower count all messages of a queue that no worker has taken."""
    from flower.utils.broker import RedisBase  # type: ignore[import-untyped] # noqa: PLC0415 a worker needs no Flower

    async def queues(broker: Any, names: Iterable[str]) -> list[dict[str, Any]]:
        try:
            found = []
            for name in names:
                lists = [broker.broker_prefix + broker._q_for_pri(name, step) for step in broker.priority_steps]  # noqa: SLF001
                found.append({"name": name, "messages": await broker.redis.eval(QUEUE_LISTS, len(lists), *lists)})
            return found
        finally:
            await broker.redis.aclose()

    RedisBase.queues = queues
