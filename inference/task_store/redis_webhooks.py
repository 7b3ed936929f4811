"""Events of webhooks in the Redis task store: one outbox for each receiver, in the order of the next attempts.

Redis keys:

    PREFIX:webhooks            sorted set: tasks whose webhook waits for its event, by the time of their end, ms
    PREFIX:webhooks:RECEIVER   sorted set: those of one receiver (HOST:PORT), by the time of the next attempt, ms
    PREFIX:webhook-receivers   sorted set: receivers with waiting events, by the time of their next event, ms
    PREFIX:webhook-outages     hash: receivers that are down, `FAILURES UNTIL_MS`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import ReceiverPause, WebhookStats
from inference.task_store.records import webhook_log_field
from inference.task_store.redis_uploads import RedisUploads
from inference.webhook import WebhookDelivery


class RedisWebhooks(RedisUploads):
    """Part of `TaskStore` for webhooks."""

    def claim_webhooks(self, *, lease_s: float, limit: int, per_receiver: int, in_flight: Mapping[str, int]) -> list[str]:
        busy = [part for receiver in in_flight.items() for part in receiver]
        claimed = self._scripts.run("claim_webhooks", round(lease_s * 1000), limit, per_receiver, *busy)
        return [task_id.decode() for task_id in claimed]

    def note_webhook(
        self,
        task_id: str,
        receiver: str,
        delivery: WebhookDelivery,
        *,
        retry_in_s: float = 0.0,
        pause: ReceiverPause | None = None,
    ) -> None:
        pauses_s = (pause.least_s, pause.first_s, pause.longest_s) if pause else (0.0, 0.0, 0.0)
        self._scripts.run(
            "note_webhook",
            *(task_id, receiver, delivery.state.value, webhook_log_field(delivery)),
            *(round(retry_in_s * 1000), self._ttl_ms, int(pause is not None)),
            *(round(seconds * 1000) for seconds in pauses_s),
        )

    def give_up_webhooks(self, *, after_s: float, limit: int) -> list[str]:
        ids = self._scripts.run("give_up_webhooks", round(after_s * 1000), self._ttl_ms, limit)
        return [task_id.decode() for task_id in ids]

    def count_webhooks(self, receiver: str) -> int:
        with unavailable_when_down():
            count: Any = self._redis.zcard(self._key("webhooks", receiver))
        return int(count)

    def get_webhook_stats(self) -> WebhookStats:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._key("webhooks"))
            pipe.zrange(self._key("webhooks"), 0, 0, withscores=True)
            pipe.zcard(self._key("webhook-receivers"))
            pipe.hlen(self._key("webhook-outages"))
            pipe.time()
            waiting, oldest, receivers, down, (seconds, microseconds) = pipe.execute()
        age_s = max(0.0, seconds + microseconds / 1e6 - oldest[0][1] / 1000) if oldest else 0.0
        return WebhookStats(waiting, age_s, receivers, down)
