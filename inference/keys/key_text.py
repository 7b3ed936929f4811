"""Text of a key: ``rk_ID_SECRETCHECK``, all of it letters and digits.

    rk_        says what it is, to people and to scanners for leaked secrets
    ID         10 characters, not secret: logs and commands name the key by it
    SECRET     43 random letters and digits, as many possibilities as 32 random bytes have
    CHECK      CRC-32 of everything before it, 8 hexadecimal digits: a mistyped key is refused without a look-up

No character ends a word, so that a double click selects the whole key, and none must be quoted in a URL, a header or a shell.
GitHub's tokens have such a form:
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

_CHARACTERS = string.ascii_letters + string.digits
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 10, 43, 8

#: The first character is a letter, so that YAML takes no id for a number.
KEY_ID_PATTERN = rf"[A-Za-z][0-9A-Za-z]{{{_ID_LENGTH - 1}}}"
#: For scanners of leaked secrets; docs/security.md has it too.
KEY_PATTERN = rf"rk_{KEY_ID_PATTERN}_[0-9A-Za-z]{{{_SECRET_LENGTH}}}[0-9a-f]{{{_CHECK_LENGTH}}}"
_KEY = re.compile(KEY_PATTERN)
_BEGINNING = re.compile(rf"rk_({KEY_ID_PATTERN})_")
_ID = slice(3, 3 + _ID_LENGTH)


def new_key_text() -> str:
    """Return the text of a new random key."""
    body = f"rk_{secrets.choice(string.ascii_letters)}{_random(_ID_LENGTH - 1)}_{_random(_SECRET_LENGTH)}"
    return body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether `text` has the form of a key and its checksum. One wrong character is always found."""
    return _KEY.fullmatch(text) is not None and text[-_CHECK_LENGTH:] == _checksum(text[:-_CHECK_LENGTH])


def id_of(text: str) -> str:
    """Return the id in a text; of a malformed one, the part at its place."""
    return text[_ID]


def claimed_id(text: str) -> str:
    """Return the id that any text claims, for logs; empty if it does not begin as a key does. It has no part of a secret."""
    found = _BEGINNING.match(text)
    return found[1] if found else ""


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a key's text, the only form in which a key is stored."""
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_CHARACTERS) for _ in range(length))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
