"""Section of webhooks: signing, the receivers that are allowed, and retries."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, model_validator

from inference.settings.client_url_section import ClientUrlSection
from inference.settings.value_checks import Count, Few, Seconds, secret_validator
from inference.webhook import WebhookEvent

_PREFIX = "whsec_"
#: Bytes of a secret: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
_MIN_BYTES, _MAX_BYTES = 24, 64


def _check_secrets(text: str) -> str:
    for secret in text.split():
        try:
            size = len(base64.b64decode(secret.removeprefix(_PREFIX), validate=True))
        except binascii.Error:
            size = 0
        if not (secret.startswith(_PREFIX) and _MIN_BYTES <= size <= _MAX_BYTES):
            raise ValueError(
                f"must be {_PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes, or several such secrets with spaces "
                'between them: echo "whsec_$(openssl rand -base64 32)"'
            )
    return text


def _not_empty(events: tuple[WebhookEvent, ...]) -> tuple[WebhookEvent, ...]:
    if not events:
        raise ValueError("must name at least one event")
    return events


#: `whsec_` and base64; several with spaces between them
WebhookSecret = Annotated[SecretStr, secret_validator(_check_secrets)]
WebhookEvents = Annotated[tuple[WebhookEvent, ...], AfterValidator(_not_empty)]


class WebhookSettings(ClientUrlSection):
    """Events about tasks for URLs that requests name. Off, unless there is a `secret`."""

    #: secret that signs the events: `whsec_` and base64; several with spaces between them: each event is signed with all
    secret: WebhookSecret = SecretStr("")
    #: receiver of requests that name none
    url: str | None = None
    #: events of requests that name none
    events: WebhookEvents = tuple(WebhookEvent)
    #: pause before the second attempt, seconds; each further pause is four times as long, up to `max_backoff_s`
    backoff_s: Seconds = 5
    max_backoff_s: Seconds = 21_600
    #: an event is given up this long after the end of its task, seconds
    give_up_after_s: Seconds = 86_400
    #: requests to receivers at a time, of one relay
    concurrency: Few = 32
    #: of these, requests to one receiver
    max_per_receiver: Few = 8
    #: requests with a webhook are refused while more events wait for its receiver
    max_waiting: Count = 10_000

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(self.secret.get_secret_value().split())

    @property
    def is_on(self) -> bool:
        return bool(self.secrets)

    @model_validator(mode="after")
    def _url_needs_a_secret(self) -> Self:
        if self.url is not None and not self.is_on:
            raise ValueError("url needs a secret, which signs the events")
        return self
