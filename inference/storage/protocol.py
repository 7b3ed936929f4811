"""The protocols of object stores, and the names of objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import IO, Protocol

from inference.errors import PayloadTooLarge


class ObjectStore(Protocol):
    """Bytes under a key such as ``uploads/2026/01/31/TASK_ID``. Safe to share between threads and greenlets.

    What is read may also be named ``s3://BUCKET/KEY``: an object of another bucket, where the store has more than one.
    """

    #: A folder: a put of a copy takes microseconds on a local disk, so that there is no use in doing it beside something else.
    is_local: bool

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_copy: bool = False,
    ) -> None:
        """Returns when the bytes are durable. Raises ServiceUnavailable; then nothing is left behind.

        Args:
            content_type: as somebody said it; kept with the object where the store has a place for it, as is `metadata`.
            is_copy: of bytes that are durable elsewhere for as long as they are needed: a power failure may take them from here.
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Raises ObjectNotFound, ServiceUnavailable, PayloadTooLarge: it has more than `max_bytes`."""

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine. Raises ServiceUnavailable."""

    def copy(self, source: str, target: str) -> None:
        """Raises ObjectNotFound, ServiceUnavailable."""

    def keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        """The first `limit` keys below `prefix`, a folder with its slash, that come after `after`, in order.

        Those of folders below it are left out. Raises ServiceUnavailable.
        """

    def apply_retention(self, days: int | None) -> None:
        """Remove uploads that are older than `days`, by a rule of the store or now; None: keep. Raises ServiceUnavailable."""

    def ping(self) -> None:
        """Look whether objects can be put here now, and leave no trace.

        A folder or bucket that is missing is no fault where the first put makes it. Raises ServiceUnavailable.
        """


class ObjectReader(Protocol):
    """Objects of any bucket, to read."""

    def etag(self, bucket: str, key: str) -> str:
        """What changes with the object's content. Raises ObjectNotFound, ServiceUnavailable."""

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        """Write the object to `target`; gives the etag of what was written. Raises ObjectNotFound, ServiceUnavailable."""


#: What clients sent lies here.
UPLOADS_PREFIX = "uploads/"
DEAD_LETTERS_PREFIX = "dead-letters/"

#: S3's limit.
_MAX_KEY_BYTES = 1024
#: Python calls no space but the usual one printable.
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_URI = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)


def bucket_and_key(uri: str) -> tuple[str, str] | None:
    """Of ``s3://BUCKET/KEY``; None where it is something else."""
    match = _URI.fullmatch(uri)
    return (match[1], match[2]) if match else None


def is_key(text: str) -> bool:
    """Whether an object can be named so: printable, and within S3's limit."""
    return _SPACES.sub("", text).isprintable() and 0 < len(text.encode()) <= _MAX_KEY_BYTES


def too_large(key: str, size: int, max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{key} has {size} bytes", expected=f"at most {max_bytes} bytes")


def upload_key(task_id: str, at: datetime) -> str:
    """Where the input of a task lies."""
    return f"{day_prefix(at)}{task_id}"


def day_prefix(at: date) -> str:
    """Prefix of the keys of a day's uploads."""
    return f"{UPLOADS_PREFIX}{at.year}/{at.month:02}/{at.day:02}/"


def dead_letter_key(task_id: str) -> str:
    """Where the input of a dead letter is kept."""
    return f"{DEAD_LETTERS_PREFIX}{task_id}"
