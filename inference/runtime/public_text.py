"""The part of a library's own words that clients get: nothing that may name a path or an address of ours. The log has all."""

from __future__ import annotations

import re

#: A path, a URL, or a Windows path.
_PLACE = re.compile(r"[/\\]")


def public_reason(text: str) -> str:
    """The first line of `text`; empty where it may name a place."""
    first = text.strip().partition("\n")[0].rstrip(".: ")
    return "" if _PLACE.search(first) else first


def with_reason(sentence: str, text: str) -> str:
    """`sentence`, with what is public of a library's text behind a colon."""
    reason = public_reason(text)
    return f"{sentence}: {reason}" if reason else sentence


def public_exception(error: Exception) -> str:
    """The type of an exception, with what is public of its text."""
    return with_reason(type(error).__name__, str(error))
