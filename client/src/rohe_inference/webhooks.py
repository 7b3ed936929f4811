"""Signatures of webhooks, after the Standard Webhooks specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Largest difference between a webhook's time and this machine's, in seconds.
TOLERANCE_S = 300


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secret: str | Sequence[str], *, tolerance_s: float = TOLERANCE_S
) -> Any:
    """Verify that the service sent a webhook, and return its body as JSON.

    Args:
        headers: of the request; names in any case.
        body: of the request, byte for byte.
        secret: `whsec_…`; during a rotation, the old and the new one.
        tolerance_s: largest age; a webhook that is older may be a repetition by someone who recorded it.

    Raises:
        WebhookRejected: a header is missing, the signature is not right, or the webhook is too old or too new.
    """
    raise NotImplementedError
