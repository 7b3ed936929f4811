"""Labels of classes from a text file; byte order marks, line ends and surrounding spaces are removed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from inference.settings.model_fields import BYTE_ORDER_MARK, clean_label

#: UTF-16 and UTF-32; the mark of little-endian UTF-32 begins with that of UTF-16.
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
#: Not `str.splitlines`, which would split a label at a form feed or a Unicode line separator.
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_labels(content: bytes) -> tuple[str, ...]:
    """Read a text file in UTF-8, with or without a byte order mark: one label per line, in class order.

    Empty lines at the end are ignored.

    Raises:
        ValueError: the content is not such a text, has no labels, or has an empty line between labels.
    """
    if content.startswith(_OTHER_MARKS) or b"\0" in content:
        raise ValueError("is not text in UTF-8, but in UTF-16 or UTF-32, or binary; save it as UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"is not text in UTF-8: line {line} has the byte 0x{content[error.start]:02x}; save it as UTF-8"
        ) from error
    text = text.replace(BYTE_ORDER_MARK, "").rstrip()
    if not text:
        raise ValueError("has no labels")
    labels = []
    for number, found in enumerate(_LINE_END.split(text), start=1):
        try:
            labels.append(clean_label(found))
        except ValueError as error:
            raise ValueError(f"has no label in line {number}; each line is a class, in order") from error
    return tuple(labels)


def try_labels(read: Callable[[], tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
    """Return the labels and an empty text, or no labels and the text of the ValueError that `read` raised."""
    try:
        return read(), ""
    except ValueError as error:
        return (), str(error)
