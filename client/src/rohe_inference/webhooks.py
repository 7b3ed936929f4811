"""Signatures of webhooks, after the Standard Webhooks specification (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rohe_inference.errors import WebhookRejected

#: Largest difference between a webhook's time and this machine's, in seconds.
TOLERANCE_S = 300.0

_PREFIX = "whsec_"
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secret: str | Sequence[str], *, tolerance_s: float = TOLERANCE_S
) -> Any:
    """Verify that the service sent a webhook, and return its body as JSON.

    Args:
        headers: of the request; names in any case.
        body: of the request, byte for byte as it came.
        secret: `whsec_…`; during a rotation, the old and the new one.
        tolerance_s: largest age; an older webhook may be a repetition of one that somebody recorded.

    Raises:
        WebhookRejected: a header is missing, the signature is not right, or the webhook is too old or too new.
        ValueError: the secret is none.
    """
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in _HEADERS if not found.get(name)]
    if missing:
        raise WebhookRejected(f"the request has no header {', '.join(missing)}")
    message_id, timestamp, signatures = (found[name] for name in _HEADERS)
    _check_time(timestamp, tolerance_s)
    secrets = [secret] if isinstance(secret, str) else secret
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    expected = [_sign(_key(one), signed) for one in secrets]
    given = [signature.encode() for signature in signatures.split(" ")]
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise WebhookRejected("no signature of the webhook was made with the secret")
    try:
        return json.loads(body)
    except ValueError:
        raise WebhookRejected("the body is not JSON") from None


def _check_time(timestamp: str, tolerance_s: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WebhookRejected("webhook-timestamp is not a number of seconds")
    age_s = time.time() - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise WebhookRejected(f"the webhook is {abs(age_s):.0f} s too {'old' if age_s > 0 else 'new'}")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX) + "==", validate=False)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("the secret is not base64 text, whsec_…")
    return key


def _sign(key: bytes, signed: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
