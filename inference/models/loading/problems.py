"""Reduction of a library's error message to one sentence."""

from __future__ import annotations

import re

#: Keras describes the path from the whole model to the error, each step with its whole configuration.
_CAUSE = "Exception encountered: "
_EXAMPLE = re.compile(r"Example error message for object (.+?):\n+(.+)")


def reason(error: Exception) -> str:
    """Return the first sentence; the whole text stays in the chained exception."""
    text = str(error).strip().rpartition(_CAUSE)[2]
    example = _EXAMPLE.search(text)
    if example:
        text = f"{example[2]} ({example[1]})"
    gist = re.search(r"\x1b\[1m(.+?)\x1b\[0m", text, re.DOTALL)  # Keras prints the reason in bold, between the call's arguments
    return re.split(r"\.\s|\n", gist[1] if gist else text)[0].rstrip(".:") or type(error).__name__
