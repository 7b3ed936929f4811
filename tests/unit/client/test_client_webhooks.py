"""Signatures of webhooks, compared with the package of the specification's authors."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rohe_inference import WebhookRejected, verify_webhook
from standardwebhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another-secret-of-24-byte").decode()
BODY = '{"type": "task.succeeded", "data": {"label": "Grüße"}}'


def headers(secret: str = SECRET, *, age_s: float = 0, body: str = BODY) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("msg_1", at, body),
    }


def test_signed_body_is_returned() -> None:
    assert verify_webhook(headers(), BODY.encode(), SECRET)["data"]["label"] == "Grüße"


def test_secret_without_prefix_and_padding_is_the_same() -> None:
    assert verify_webhook(headers(), BODY.encode(), SECRET.removeprefix("whsec_").rstrip("="))


def test_any_of_several_signatures_and_secrets_suffices() -> None:
    both = headers()
    both["Webhook-Signature"] = f"v1a,AAAA {headers(OTHER)['Webhook-Signature']} {both['Webhook-Signature']}"

    assert verify_webhook(both, BODY.encode(), SECRET)
    assert verify_webhook(headers(OTHER), BODY.encode(), [SECRET, OTHER])


@pytest.mark.parametrize(
    "changed",
    [
        {"Webhook-Id": "msg_2"},
        {"Webhook-Signature": "v1,AAAA"},
        {"Webhook-Signature": "v1,Grüße"},
        {"Webhook-Signature": ""},
        {"Webhook-Timestamp": "yesterday"},
        {"Webhook-Timestamp": "1"},
    ],
)
def test_other_headers_are_rejected(changed: dict[str, Any]) -> None:
    with pytest.raises(WebhookRejected):
        verify_webhook(headers() | changed, BODY.encode(), SECRET)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_missing_header_is_named(missing: str) -> None:
    incomplete = {name: value for name, value in headers().items() if name != missing}
    with pytest.raises(WebhookRejected, match=missing.lower()):
        verify_webhook(incomplete, BODY.encode(), SECRET)


def test_other_body_and_other_secret_are_rejected() -> None:
    with pytest.raises(WebhookRejected):
        verify_webhook(headers(), BODY.encode() + b" ", SECRET)
    with pytest.raises(WebhookRejected):
        verify_webhook(headers(), BODY.encode(), OTHER)


@pytest.mark.parametrize("age_s", [-400, 400])
def test_old_and_new_ones_are_rejected(age_s: float) -> None:
    signed = headers(age_s=age_s)
    with pytest.raises(WebhookRejected, match=r"s too (old|new)"):
        verify_webhook(signed, BODY.encode(), SECRET)

    assert verify_webhook(signed, BODY.encode(), SECRET, tolerance_s=600)


def test_signed_body_that_is_not_json_is_rejected() -> None:
    with pytest.raises(WebhookRejected, match="not JSON"):
        verify_webhook(headers(body="hello"), b"hello", SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%"])
def test_secret_that_is_none_is_told(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(headers(), BODY.encode(), secret)
