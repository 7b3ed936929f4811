"""The protocols of object stores, and the names of objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import IO, Protocol

from inference.errors import PayloadTooLarge


class ObjectStore(Protocol):
    """Bytes under a key such as ``uploads/2026/01/31/TASK_ID``. Safe to share between threads and greenlets.

    An object to read may also be named ``s3://BUCKET/KEY``: one of another bucket, where the store has more than one.
    """

    #: whether it is a folder: a put of a copy takes microseconds on a local disk, so doing it concurrently gains nothing
    is_local: bool

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_durable: bool = True,
    ) -> None:
        """Return when the bytes are durable. Raises ServiceUnavailable; then nothing is left behind.

        Args:
            content_type: as the client named it; kept with the object where the store has a place for it, as is `metadata`.
            is_durable: the bytes are durable elsewhere for as long as they are needed: a power failure may take them from here.
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes. Raises ObjectNotFound, ServiceUnavailable, PayloadTooLarge: it has more than `max_bytes`."""

    def delete(self, key: str) -> None:
        """Delete an object, or nothing where there is none. Raises ServiceUnavailable."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object. Raises ObjectNotFound, ServiceUnavailable."""

    def keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        """The first `limit` keys below `prefix`, a folder with its slash, that come after `after`, in order.

        Keys in folders below it are left out. Raises ServiceUnavailable.
        """

    def apply_retention(self, days: int | None) -> None:
        """Remove uploads that are older than `days`, by a rule of the store or now; None: keep. Raises ServiceUnavailable."""

    def ping(self) -> None:
        """Check whether objects can be put here now, and leave no trace.

        A folder or bucket that is missing is no fault where the first put makes it. Raises ServiceUnavailable.
        """


class ObjectReader(Protocol):
    """Objects of any bucket, to read."""

    def etag(self, bucket: str, key: str) -> str:
        """A tag that changes with the object's content. Raises ObjectNotFound, ServiceUnavailable."""

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        """Write the object to `target`; gives the etag of what was written. Raises ObjectNotFound, ServiceUnavailable."""


#: Images that clients sent.
UPLOADS_PREFIX = "uploads/"
DEAD_LETTERS_PREFIX = "dead-letters/"

#: S3's limit.
_MAX_KEY_BYTES = 1024
#: Python calls no space but the usual one printable.
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_URI = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)


def bucket_and_key(uri: str) -> tuple[str, str] | None:
    """Bucket and key that ``s3://BUCKET/KEY`` names; None for another text."""
    match = _URI.fullmatch(uri)
    return (match[1], match[2]) if match else None


def is_key(text: str) -> bool:
    """Whether an object can be named so: printable, and within S3's limit."""
    return _SPACES.sub("", text).isprintable() and 0 < len(text.encode()) <= _MAX_KEY_BYTES


def too_large(key: str, size: int, max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{key} has {size} bytes", expected=f"at most {max_bytes} bytes")


def upload_key(task_id: str, at: datetime) -> str:
    """Key of the input of a task."""
    return f"{day_prefix(at)}{task_id}"


def day_prefix(at: date) -> str:
    """Prefix of the keys of a day's uploads."""
    return f"{UPLOADS_PREFIX}{at.year}/{at.month:02}/{at.day:02}/"


def dead_letter_key(task_id: str) -> str:
    """Key of the input of a dead letter."""
    return f"{DEAD_LETTERS_PREFIX}{task_id}"
