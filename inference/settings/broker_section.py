"""Section of Celery's broker, and the URLs that it may have."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from inference.settings import addresses
from inference.settings.redis_address import REDIS_SCHEMES, RedisAddress
from inference.settings.value_checks import TlsSection

#: Value of `broker.url` for the server that the service starts by itself.
EMBEDDED = "embedded"

_AMQP_URL = re.compile(r"amqps?://")
_REDIS_FORMS = (
    f"'{EMBEDDED}', redis://HOST:PORT/DB, rediss://…, valkey://…, valkeys://…,"
    " sentinel://HOST:PORT,HOST:PORT/DB?master=NAME, unix:///PATH"
)


def _redis_or_embedded(url: str, *, or_else: str = "") -> str:
    if url == EMBEDDED:
        return url
    scheme, is_url, _ = url.partition("://")
    if not is_url or scheme not in REDIS_SCHEMES:
        raise ValueError(f"must be {_REDIS_FORMS}{or_else}")
    RedisAddress.parse(url)
    return url


def _any_broker(url: str) -> str:
    return addresses.amqp_url(url) if _AMQP_URL.match(url) else _redis_or_embedded(url, or_else=" or amqp://HOST:PORT/VHOST")


RedisUrl = Annotated[str, AfterValidator(_redis_or_embedded)]
BrokerUrl = Annotated[str, AfterValidator(_any_broker)]


class BrokerSettings(TlsSection):
    """Celery's broker: Redis or RabbitMQ. The files of certificates are for amqps://; a Redis URL names its own."""

    #: 'embedded', a Redis URL (inference/settings/redis_address.py) or amqp://USER:PASSWORD@HOST:5672/VHOST
    url: BrokerUrl = EMBEDDED
    #: memory of the embedded server, MiB; new requests are refused when it is nearly full; default: 40 % of the machine's
    embedded_memory_mb: int | None = Field(default=None, ge=64, le=2**40)
    #: type of the queues on RabbitMQ
    queue_type: Literal["quorum", "classic"] = "quorum"
    #: transport by which workers take messages from Redis: `claiming`, many at a time (tasks/transport); `stock`, kombu's own
    transport: Literal["claiming", "stock"] = "claiming"

    @property
    def is_amqp(self) -> bool:
        return bool(_AMQP_URL.match(self.url))

    @property
    def has_turns(self) -> bool:
        """Whether owners with waiting tasks take turns (tasks/transport/claim.lua)."""
        return not self.is_amqp and self.transport == "claiming"

    @property
    def has_amqp_tls(self) -> bool:
        return self.url.startswith("amqps://")

    @model_validator(mode="after")
    def _files_are_for_rabbitmq(self) -> Self:
        if self.has_tls_files and not self.has_amqp_tls:
            raise ValueError(
                "ca_file, cert_file and key_file need an amqps:// URL; a rediss:// URL has ?ssl_ca_certs=FILE instead"
            )
        return self
