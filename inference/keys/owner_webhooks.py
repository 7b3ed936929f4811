"""Webhooks of owners: the secrets, the URL and the events that an owner has in place of those of the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inference.keys.entries import OwnerSettings
from inference.settings import WebhookSettings
from inference.webhook import WebhookEvent


@dataclass(frozen=True)
class WebhookDefaults:
    """Secrets, URL and events of the webhooks of an owner's tasks."""

    #: each event has a signature by each; none: the owner's tasks can have no webhook
    secrets: tuple[str, ...]
    #: receiver of requests that name none; None: such requests have no webhook
    url: str | None
    #: events of requests that name none
    events: tuple[WebhookEvent, ...]


class OwnerWebhooks:
    """Looks up the settings for the webhooks of an owner's tasks.

    Args:
        settings: for tasks without an owner, and for owners without settings of their own.
        owner_settings: returns the settings of an owner as they are now; None: no owner has any.
    """

    def __init__(self, settings: WebhookSettings, owner_settings: Callable[[str], OwnerSettings] | None) -> None:
        self._owner_settings = owner_settings
        self._of_service = WebhookDefaults(settings.secrets, settings.url, settings.events)

    def of(self, owner: str) -> WebhookDefaults:
        """Return the settings of this owner.

        An owner with a secret does not get `webhooks.url`, whose receiver knows the secret of the service alone.
        """
        common = self._of_service
        if not owner or self._owner_settings is None:
            return common
        own = self._owner_settings(owner).webhook
        if not own.model_fields_set:
            return common
        return WebhookDefaults(
            own.secrets or common.secrets,
            own.url or (None if own.secrets else common.url),
            own.events or common.events,
        )
