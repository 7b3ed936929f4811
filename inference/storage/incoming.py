"""Keys of images that clients put into the object store themselves, before a request names them.

    incoming/ 0 ── 12  13 ─── 44      hexadecimal
              expiry   random

The key says when the upload expires, in milliseconds since the epoch, so keys are listed by expiry, and every relay can remove
expired uploads without a record of them. The random part cannot be guessed: to know the key is to be allowed to name it.
"""

from __future__ import annotations

import re
import secrets

INCOMING_PREFIX = "incoming/"

_TIME_LENGTH, _RANDOM_BYTES = 12, 16
UPLOAD_ID_PATTERN = f"[0-9a-f]{{{_TIME_LENGTH + 2 * _RANDOM_BYTES}}}"
_KEY = re.compile(INCOMING_PREFIX + UPLOAD_ID_PATTERN)
#: The key of an upload, or the name of a part of one that broke off.
_EXPIRING = re.compile(rf"{INCOMING_PREFIX}({UPLOAD_ID_PATTERN})(\..+)?")


def new_upload_id(expires_at_ms: int) -> str:
    """Create the id of an upload that expires at this time, milliseconds since the epoch."""
    return f"{expires_at_ms:0{_TIME_LENGTH}x}{secrets.token_hex(_RANDOM_BYTES)}"


def incoming_key(upload_id: str) -> str:
    """Return the key of an upload."""
    return INCOMING_PREFIX + upload_id


def is_incoming(key: str) -> bool:
    """Return whether the key is one that `incoming_key` makes."""
    return _KEY.fullmatch(key) is not None


def expires_at_ms(key: str) -> int | None:
    """Return when an object below the prefix expires, milliseconds since the epoch; None if it is no upload."""
    match = _EXPIRING.fullmatch(key)
    return int(match[1][:_TIME_LENGTH], 16) if match else None
