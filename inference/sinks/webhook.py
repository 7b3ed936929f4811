"""Requests to the receivers of webhooks, as Standard Webhooks says: https://www.standardwebhooks.com."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus

from standardwebhooks import Webhook as Signer

from inference.errors import ConfigurationError
from inference.runtime.url_guard import UrlGuard, UrlRefused, UrlRules, UrlUnreachable
from inference.settings import WebhookSettings
from inference.tracing.context import trace_headers
from inference.webhook import WebhookAttempt

#: Answers that are about the receiver, not about the event: it is down, or overloaded.
_OF_RECEIVER = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}

#: Secrets whose signers are remembered.
_MAX_SIGNERS = 1000


def webhook_guard(settings: WebhookSettings) -> UrlGuard:
    """Return the guard of webhooks' URLs. Raises ConfigurationError."""
    try:
        guard = UrlGuard(UrlRules.of(settings))
        if settings.url is not None:
            guard.check(settings.url)
    except UrlRefused as error:
        raise ConfigurationError(f"webhooks.url: {error}", field="webhooks.url") from error
    except ValueError as error:
        raise ConfigurationError(f"webhooks: {error}", field="webhooks") from error
    return guard


@dataclass(frozen=True)
class WebhookAnswer:
    """Answer of a receiver, or the reason for which there is none."""

    attempt: WebhookAttempt
    is_delivered: bool = False
    #: no further attempt can succeed
    is_final: bool = False
    #: the receiver is down or overloaded: other events would get the same answer
    is_receiver_down: bool = False
    #: seconds, from the header `Retry-After`
    retry_after_s: float = 0.0


class WebhookSender:
    """Signs events and sends them. Threads may share it.

    Args:
        secrets_of: returns the secrets of an owner; an event has a signature by each.
    """

    def __init__(self, guard: UrlGuard, secrets_of: Callable[[str], tuple[str, ...]]) -> None:
        self._guard = guard
        self._secrets_of = secrets_of
        self._signer = lru_cache(maxsize=_MAX_SIGNERS)(Signer)

    def send(self, url: str, webhook_id: str, body: bytes, *, owner: str = "", trace: str = "") -> WebhookAnswer:
        """Make one attempt; `webhook_id` is the same in each. Failures of a receiver or a network raise no error.

        An event is not sent without a signature: it waits while its owner has no secret.

        Args:
            trace: trace context, which the request passes on.
        """
        sent_at_ms, started_s = round(time.time() * 1000), time.monotonic()

        def attempt(status: int | None = None, error: str | None = None) -> WebhookAttempt:
            return WebhookAttempt(sent_at_ms, round((time.monotonic() - started_s) * 1000, 1), status, error)

        signers = [self._signer(secret) for secret in self._secrets_of(owner)]
        if not signers:
            return WebhookAnswer(attempt(error="there is no secret to sign the event with"))
        try:
            answer = self._guard.send(url, body, {**_headers(signers, webhook_id, body), **trace_headers(trace)})
        except UrlRefused as error:
            return WebhookAnswer(attempt(error=str(error)), is_final=True)
        except UrlUnreachable as error:
            return WebhookAnswer(attempt(error=str(error)), is_receiver_down=True)
        return WebhookAnswer(
            attempt(answer.status),
            is_delivered=HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES,
            is_final=answer.status == HTTPStatus.GONE,
            is_receiver_down=answer.status in _OF_RECEIVER,
            retry_after_s=_retry_after_s(answer.headers.get("Retry-After", "")),
        )


def _headers(signers: Iterable[Signer], webhook_id: str, body: bytes) -> Mapping[str, str]:
    now = datetime.now(UTC)
    signatures = (signer.sign(webhook_id, now, body.decode()) for signer in signers)
    return {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(math.floor(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _retry_after_s(text: str) -> float:
    """Read `Retry-After`, seconds or a date (RFC 9110); 0 for any other text."""
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
