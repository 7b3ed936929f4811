"""Text of log lines: without secrets, without image bytes, and safe to show on a terminal.

The service logs none of them itself, but libraries quote their arguments in errors and at the level DEBUG.
"""

from __future__ import annotations

import re

from inference.settings.masking import MASK

#: Longest message or exception: it may quote data that an unknown client sent.
_MAX_CHARACTERS = 8_000
#: Characters in which secrets are looked for: the rest is cut before. More than a line has: half a secret would not be found.
_READ_CHARACTERS = 64_000
#: Line ends, terminal commands, and marks that change the direction or the lines of the text after them.
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: Secrets, each with the text before it that stays.
_SECRETS = re.compile(
    # a password in a URL
    r"((?<=://)[^\s/?#@:]*:)[^\s/?#]+(?=@)"
    # a parameter of a URL: passwords, and the signatures and credentials of presigned URLs (S3, Google, Azure, our own uploads)
    r"|((?<=[?&])[\w-]*(?:password|secret|token|signature|credential|api_?key|accesskeyid|\bsig)=)[^\s&'\"]+"
    # a header that has a key or a signature, in the text of a message or of a mapping
    r"|(\bauthorization(?:['\"]?\s*[:=]|['\"]\s*,)\s*b?['\"]?)[^'\"\r\n]+"
    r"|(\bx-api-key(?:['\"]?\s*[:=]|['\"]\s*,)\s*b?['\"]?)[^'\"\s]+"
    r"|(\bbearer\s+)[\w.~+/=-]{16,}"
    # a key of this service, whose id is not secret, and the secret of webhooks
    r"|(\brk_[a-z][0-9a-z]{9}_)[0-9a-z]{20,}"
    r"|(\bwhsec_)[\w+/=-]+",
    re.IGNORECASE,
)
#: Images as text: base64, and Python's text of bytes.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")
_BYTES = re.compile(r"\bb'(?:[^'\\]|\\.){128,}'?|\bb\"(?:[^\"\\]|\\.){128,}\"?")


def safe_text(text: str) -> str:
    """Mask secrets, replace data by its size, escape characters that a terminal would not show as text, and limit the length."""
    length = len(text)
    text = _SECRETS.sub(lambda found: f"{found[found.lastindex or 0]}{MASK}", _ends(text, _READ_CHARACTERS, " … "))
    if len(text) >= 128:  # noqa: PLR2004 the shortest data that is replaced
        text = _BASE64.sub(lambda found: f"…({len(found[0])} characters)…", text)
        text = _BYTES.sub(lambda found: f"b'…({len(found[0])} characters)…'", text)
    return escape(_ends(text, _MAX_CHARACTERS, f" …({length} characters)… "))


def _ends(text: str, characters: int, between: str) -> str:
    """Return the two ends of a text that is longer than `characters`."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]}{between}{text[-half:]}"


def escape(text: str) -> str:
    """Escape characters that a terminal would not show as text; line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
