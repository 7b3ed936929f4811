"""Part of a library's message that clients get: without a path or address of the service. The log has the whole message."""

from __future__ import annotations

import re

#: A path, a URL, or a Windows path.
_PLACE = re.compile(r"[/\\]")


def public_reason(text: str) -> str:
    """Return the first line of `text`; empty if it may name a path or an address."""
    first = text.strip().partition("\n")[0].rstrip(".: ")
    return "" if _PLACE.search(first) else first


def with_reason(sentence: str, text: str) -> str:
    """Return `sentence`, followed by a colon and the public part of a library's text."""
    reason = public_reason(text)
    return f"{sentence}: {reason}" if reason else sentence


def public_exception(error: BaseException) -> str:
    """Return the type of an exception, followed by the public part of its text."""
    return with_reason(type(error).__name__, str(error))
