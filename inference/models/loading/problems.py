"""What a library has to say, in one sentence."""

from __future__ import annotations

import re

#: Keras tells the way from the whole model down to what was wrong, each step with all of its configuration.
_CAUSE = "Exception encountered: "
_EXAMPLE = re.compile(r"Example error message for object (.+?):\n+(.+)")


def reason(error: Exception) -> str:
    """The first sentence; the whole of it stays in the chained exception."""
    text = str(error).strip().rpartition(_CAUSE)[2]
    example = _EXAMPLE.search(text)
    if example:
        text = f"{example[2]} ({example[1]})"
    gist = re.search(r"\x1b\[1m(.+?)\x1b\[0m", text, re.DOTALL)  # Keras prints it bold, among the call's arguments
    return re.split(r"\.\s|\n", gist[1] if gist else text)[0].rstrip(".:") or type(error).__name__
