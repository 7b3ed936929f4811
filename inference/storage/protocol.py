"""Protocols of object stores, and the keys of objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import IO, Protocol

from inference.errors import PayloadTooLarge


class ObjectStore(Protocol):
    """Store of bytes under keys such as ``uploads/2026/01/31/TASK_ID``. Safe to share between threads and greenlets.

    An object to read may also be named ``s3://BUCKET/KEY``, an object of another bucket, if the store has buckets.
    """

    #: whether it is a local folder, on which a put that need not be durable takes microseconds, so no thread is used for it
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
        """Store bytes; return when they are durable. Raises ServiceUnavailable; then nothing is stored.

        Args:
            content_type: as the client sent it; stored with the object if the store can do that, as is `metadata`.
            is_durable: False if the bytes are durable in another place while they are needed: a power failure may lose these.
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return an object's bytes.

        Raises ObjectNotFound, ServiceUnavailable, PayloadTooLarge: it has more than `max_bytes`.
        """

    def size(self, key: str) -> int:
        """Return the number of an object's bytes, without reading them. Raises ObjectNotFound, ServiceUnavailable."""

    def put_url(self, key: str, *, lifetime_s: float) -> str | None:
        """Return a URL to which a client may put the object for this time; None if the store has none.

        Raises ServiceUnavailable.
        """

    def delete(self, key: str) -> None:
        """Delete an object; do nothing if there is none. Raises ServiceUnavailable."""

    def erase(self, key: str) -> None:
        """Delete an object with all its versions; do nothing if there is none. Raises ServiceUnavailable."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object. Raises ObjectNotFound, ServiceUnavailable."""

    def list_keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        """Return the first `limit` keys below `prefix`, a folder with its slash, that come after `after`, in order.

        Keys in subfolders are left out. Raises ServiceUnavailable.
        """

    def apply_retention(self, hours: float | None) -> bool:
        """Remove uploads older than `hours`, by a rule of the store or here; None: keep all. Raises ServiceUnavailable.

        Returns:
            Whether there may be more to remove now: a call removes a limited number.
        """

    def ping(self) -> None:
        """Check that objects can be put now, and change nothing.

        A missing folder or bucket is no error, since the first put makes it. Raises ServiceUnavailable.
        """


class ChunkStore(Protocol):
    """Store that takes an object in pieces, as they arrive."""

    def put_chunks(self, key: str, chunks: Iterable[bytes]) -> None:
        """Store an object as a whole when all its pieces have come; if `chunks` raises, nothing is stored.

        Raises ServiceUnavailable, and the errors of `chunks`.
        """


class ObjectReader(Protocol):
    """Reader of the objects of any bucket."""

    def etag(self, bucket: str, key: str) -> str:
        """Return a tag that changes with the object's content. Raises ObjectNotFound, ServiceUnavailable."""

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        """Write the object to `target`; return the etag of the written content. Raises ObjectNotFound, ServiceUnavailable."""


#: Prefix of images that clients sent.
UPLOADS_PREFIX = "uploads/"
DEAD_LETTERS_PREFIX = "dead-letters/"

_OF_TASK = re.compile(rf"{UPLOADS_PREFIX}\d{{4}}/\d\d/\d\d/|{DEAD_LETTERS_PREFIX}", re.ASCII)

#: S3's limit.
_MAX_KEY_BYTES = 1024
#: To Python, all spaces but the usual one are not printable.
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
#: Names that a path may not contain: they lead to the folder itself, or out of it.
_NO_NAMES = {"", ".", ".."}
_URI = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)


def bucket_and_key(uri: str) -> tuple[str, str] | None:
    """Return the bucket and the key that ``s3://BUCKET/KEY`` names; None for any other text."""
    match = _URI.fullmatch(uri)
    return (match[1], match[2]) if match else None


def is_key(text: str) -> bool:
    """Return whether a text can be the key of an object: it is printable, and within S3's limit."""
    return _SPACES.sub("", text).isprintable() and 0 < len(text.encode()) <= _MAX_KEY_BYTES


def is_path(key: str) -> bool:
    """Return whether a key is a path below a folder, which every store requires of every key."""
    return _NO_NAMES.isdisjoint(key.split("/")) and "\0" not in key


def too_large(key: str, size: int, max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{key} has {size} bytes", expected=f"at most {max_bytes} bytes")


def upload_key(task_id: str, at: datetime) -> str:
    """Return the key of the image of a task."""
    return f"{day_prefix(at)}{task_id}"


def is_of_task(key: str) -> bool:
    """Return whether the key is that of the image of a task or a dead letter, which the service stores itself."""
    return _OF_TASK.match(key) is not None


def day_prefix(at: date) -> str:
    """Return the prefix of the keys of a day's uploads."""
    return f"{UPLOADS_PREFIX}{at.year}/{at.month:02}/{at.day:02}/"


def dead_letter_key(task_id: str) -> str:
    """Return the key of the image of a dead letter."""
    return f"{DEAD_LETTERS_PREFIX}{task_id}"
