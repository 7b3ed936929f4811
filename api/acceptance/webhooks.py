"""Webhooks of new tasks: defaults from the settings, and the checks that need no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from api.forms.webhook import WebhookChoice
from inference.errors import InvalidMetadata, ServiceUnavailable
from inference.runtime.ttl_cache import TtlCache
from inference.runtime.url_guard import UrlGuard, UrlRefused
from inference.settings import WebhookSettings
from inference.webhook import Webhook

_FIELD = "metadata.webhook"
#: Age from which the number of a receiver's waiting events is read again, seconds.
_COUNT_AGE_S = 0.5
#: Receivers whose number is remembered.
_MAX_COUNTS = 1000
_RETRY_AFTER_S = 30.0


class WebhookPolicy:
    """Decides which webhook a task has.

    Args:
        guard: returns the guard of the URLs; called only if webhooks are on.
        count_waiting: returns the number of events that wait for a receiver.
    """

    def __init__(self, settings: WebhookSettings, guard: Callable[[], UrlGuard], count_waiting: Callable[[str], int]) -> None:
        self._settings = settings
        self._guard = guard() if settings.is_on else None
        self._count_waiting = count_waiting
        self._counts: dict[str, TtlCache[int]] = {}

    def webhook_for(self, choice: WebhookChoice | None) -> Webhook | None:
        """Return the webhook of a task; None if it has none.

        Raises:
            InvalidMetadata: webhooks are off, or the URL is not allowed.
        """
        if choice is None:
            if self._settings.url is None:
                return None
            choice = WebhookChoice()
        if choice.url == "":
            return None
        if self._guard is None:
            raise InvalidMetadata(
                "this service sends no webhooks", field=_FIELD, expected="a service with webhooks.secret, or no webhook"
            )
        url = choice.url or self._settings.url
        if url is None:
            raise InvalidMetadata("the webhook has no URL", field=f"{_FIELD}.url", expected="the URL of the receiver")
        try:
            receiver = self._guard.check(url)
        except UrlRefused as error:
            raise InvalidMetadata(
                str(error), field=f"{_FIELD}.url", expected="a URL that webhooks.hosts, ports and private_networks allow"
            ) from error
        return Webhook(url, receiver, choice.events or self._settings.events)

    def check_room(self, webhooks: Iterable[Webhook | None]) -> None:
        """Check that not too many events wait for the receivers.

        Raises:
            ServiceUnavailable: a receiver has been down for so long that its outbox is full.
        """
        for receiver in {webhook.receiver for webhook in webhooks if webhook}:
            waiting = self._count(receiver)
            if waiting >= self._settings.max_waiting:
                raise ServiceUnavailable(
                    f"{waiting} events wait for {receiver}: no task with this webhook is accepted until they are delivered",
                    retry_after_s=_RETRY_AFTER_S,
                )

    def _count(self, receiver: str) -> int:
        if receiver not in self._counts:
            if len(self._counts) >= _MAX_COUNTS:
                self._counts.clear()
            self._counts[receiver] = TtlCache(partial(self._count_waiting, receiver), max_age_s=_COUNT_AGE_S)
        return self._counts[receiver]()
