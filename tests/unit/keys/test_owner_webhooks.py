"""Secrets and defaults of the webhooks of an owner's tasks."""

from __future__ import annotations

from pydantic import SecretStr

from inference.keys.entries import OwnerSettings, OwnerWebhook
from inference.keys.owner_webhooks import OwnerWebhooks, WebhookDefaults
from inference.settings import WebhookSettings
from inference.webhook import WebhookEvent

SECRET, OWN, NEW = (f"whsec_{letter * 43}=" for letter in "ABC")
URL, OWN_URL = "https://hooks.example/", "https://alice.example/"
ALL, FAILED = tuple(WebhookEvent), (WebhookEvent.FAILED,)
SETTINGS = WebhookSettings(secret=SecretStr(SECRET), url=URL)


def of_alice(webhook: OwnerWebhook) -> WebhookDefaults:
    owners = {"alice": OwnerSettings(webhook=webhook)}
    return OwnerWebhooks(SETTINGS, lambda name: owners.get(name, OwnerSettings())).of("alice")


def test_an_owner_without_settings_has_those_of_the_service() -> None:
    common = WebhookDefaults((SECRET,), URL, ALL)
    assert of_alice(OwnerWebhook()) == common
    assert [OwnerWebhooks(SETTINGS, None).of(owner) for owner in ("alice", "")] == [common, common]


def test_each_setting_of_an_owner_takes_precedence() -> None:
    assert of_alice(OwnerWebhook(url=OWN_URL)) == WebhookDefaults((SECRET,), OWN_URL, ALL)
    assert of_alice(OwnerWebhook(events=FAILED)) == WebhookDefaults((SECRET,), URL, FAILED)
    own = OwnerWebhook(secret=SecretStr(f"{NEW} {OWN}"), url=OWN_URL, events=FAILED)
    assert of_alice(own) == WebhookDefaults((NEW, OWN), OWN_URL, FAILED)


def test_an_owner_with_a_secret_does_not_send_to_the_receiver_of_the_service() -> None:
    assert of_alice(OwnerWebhook(secret=SecretStr(OWN))) == WebhookDefaults((OWN,), None, ALL)


def test_a_task_without_an_owner_has_the_webhook_of_the_service() -> None:
    owners = OwnerWebhooks(SETTINGS, lambda _: OwnerSettings(webhook=OwnerWebhook(url=OWN_URL)))
    assert owners.of("") == WebhookDefaults((SECRET,), URL, ALL)
