"""Keys of images that clients put into the object store themselves, before a request names them.

    incoming/ 0 ── 12  13 ─── 44  45 ─── 60      hexadecimal
              expiry   random     digest of the owner, if it has one

The key says when the upload expires, in milliseconds since the epoch, so keys are listed by expiry, and every relay can remove
expired uploads without a record of them. The random part cannot be guessed. An owner may name its own uploads, and without
keys, whoever knows the key.
"""

from __future__ import annotations

import hashlib
import re
import secrets

INCOMING_PREFIX = "incoming/"

_TIME_LENGTH, _RANDOM_BYTES, _OWNER_LENGTH = 12, 16, 16
_UNOWNED_LENGTH = _TIME_LENGTH + 2 * _RANDOM_BYTES
UPLOAD_ID_PATTERN = f"[0-9a-f]{{{_UNOWNED_LENGTH}}}([0-9a-f]{{{_OWNER_LENGTH}}})?"
_KEY = re.compile(INCOMING_PREFIX + UPLOAD_ID_PATTERN)
#: The key of an upload, or the name of a part of one that broke off.
_EXPIRING = re.compile(rf"{INCOMING_PREFIX}(?P<id>{UPLOAD_ID_PATTERN})(\..+)?")


def new_upload_id(expires_at_ms: int, owner: str = "") -> str:
    """Create the id of an owner's upload that expires at this time, milliseconds since the epoch."""
    return f"{expires_at_ms:0{_TIME_LENGTH}x}{secrets.token_hex(_RANDOM_BYTES)}{_digest(owner)}"


def incoming_key(upload_id: str) -> str:
    """Return the key of an upload."""
    return INCOMING_PREFIX + upload_id


def is_incoming(key: str) -> bool:
    """Return whether the key is one that `incoming_key` makes."""
    return _KEY.fullmatch(key) is not None


def belongs_to(key: str, owner: str) -> bool:
    """Return whether the owner, who is not '', created the upload with this key."""
    return owner != "" and is_incoming(key) and key[len(INCOMING_PREFIX) + _UNOWNED_LENGTH :] == _digest(owner)


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:_OWNER_LENGTH] if owner else ""


def expires_at_ms(key: str) -> int | None:
    """Return when an object below the prefix expires, milliseconds since the epoch; None if it is no upload."""
    match = _EXPIRING.fullmatch(key)
    return int(match["id"][:_TIME_LENGTH], 16) if match else None
