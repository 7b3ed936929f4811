"""Webhooks of new tasks: defaults of the service or the owner, and the checks that need no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial

from api.forms.webhook import WebhookChoice
from inference.errors import InvalidMetadata, ServiceUnavailable
from inference.keys.owner_webhooks import OwnerWebhooks
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
        owners: secrets and defaults by owner.
        make_guard: returns the guard of the URLs; called only if there are webhooks.
        count_waiting: returns the number of events that wait for a receiver.

    Raises:
        ConfigurationError: `webhooks.url` is not allowed.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        owners: OwnerWebhooks,
        make_guard: Callable[[], UrlGuard],
        count_waiting: Callable[[str], int],
    ) -> None:
        self._settings = settings
        self._owners = owners
        self._make_guard = make_guard
        if settings.is_on:
            _ = self._guard  # a wrong setting ends the start
        self._count_waiting = count_waiting
        self._counts: dict[str, TtlCache[int]] = {}

    @cached_property
    def _guard(self) -> UrlGuard:
        return self._make_guard()

    def webhook_for(self, choice: WebhookChoice | None, owner: str) -> Webhook | None:
        """Return the webhook of a task of this owner; None if it has none.

        Raises:
            InvalidMetadata: webhooks are off, or the URL is not allowed.
        """
        defaults = self._owners.of(owner)
        if choice is None:
            if defaults.url is None:
                return None
            choice = WebhookChoice()
        if choice.url == "":
            return None
        if not defaults.secrets:
            raise InvalidMetadata(
                "this service sends no webhooks", field=_FIELD, expected="a service with webhooks.secret, or no webhook"
            )
        url = choice.url or defaults.url
        if url is None:
            raise InvalidMetadata("the webhook has no URL", field=f"{_FIELD}.url", expected="the URL of the receiver")
        try:
            receiver = self._guard.check(url)
        except UrlRefused as error:
            raise InvalidMetadata(
                str(error), field=f"{_FIELD}.url", expected="a URL that webhooks.hosts, ports and private_networks allow"
            ) from error
        return Webhook(url, f"{owner}/{receiver}" if owner else receiver, choice.events or defaults.events)

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
