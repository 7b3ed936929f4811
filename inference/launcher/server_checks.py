"""Checks of the broker and the task store when a part of the service starts."""

from __future__ import annotations

from inference.settings import Settings
from inference.status.redis_durability import check_redis


def check_servers(settings: Settings) -> None:
    """Raise ConfigurationError if a server refuses the connection or would lose tasks. A server that is down passes."""
    check_redis(settings)
    if settings.broker.is_amqp:
        from inference.broker.amqp import check_login  # noqa: PLC0415 an adapter is imported only if the settings choose it

        check_login(settings.broker)
