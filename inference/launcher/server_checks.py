"""Ask the broker and the record store, when a part starts, whether it can work with them."""

from __future__ import annotations

from inference.settings import Settings
from inference.status.redis_durability import check_redis


def check_servers(settings: Settings) -> None:
    """Raise ConfigurationError where a server refuses us or would lose tasks. Servers that are down are waited for later."""
    check_redis(settings)
    if settings.broker.is_amqp:
        from inference.broker.amqp import check_login  # noqa: PLC0415 an adapter is loaded when it is chosen

        check_login(settings.broker)
