"""Uploads of clients: images that they put into the object store themselves, and name in a request after that.

    POST /uploads ──▶ URL ──PUT──▶ the object store, or this API for a folder ──▶ {"image": {"url": "s3://…"}}

A URL of this API is signed, as those of S3 are: nothing is stored about an upload until its bytes come, and the URL is all
that it takes to put them. Only its owner may name the upload after that.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from inference.access import Caller
from inference.errors import ObjectNotFound, PayloadTooLarge
from inference.runtime.ttl_cache import TtlCache
from inference.settings import UploadSettings
from inference.storage import chunk_store
from inference.storage.client_uploads import expires_at_ms, incoming_key, new_upload_id
from inference.storage.protocol import ObjectStore
from inference.task_store import SubmissionStore

#: Seconds for which the secret of the signatures is cached.
_SECRET_AGE_S = 60.0


@dataclass(frozen=True)
class NewUpload:
    """An upload that may be put now."""

    upload_id: str
    #: the address of the image in requests
    uri: str
    #: URL of the object store; None: the API takes the bytes, with this signature
    url: str | None
    signature: str
    expires_at_ms: int
    max_bytes: int


class ClientUploads:
    """Creates uploads, and takes their bytes if the object store is a folder.

    Args:
        check_free_space: raises StorageFull while there is too little room.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        objects: ObjectStore,
        store: SubmissionStore,
        settings: UploadSettings,
        *,
        check_free_space: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._chunks = chunk_store(objects)
        self.max_bytes = settings.max_bytes
        self._secret = TtlCache(store.get_upload_secret, max_age_s=_SECRET_AGE_S)
        self._settings = settings
        self._check_free_space = check_free_space
        self._clock = clock

    def create(self, caller: Caller) -> NewUpload:
        """Create an upload of the caller's owner, of which nothing is stored yet. Raises ServiceUnavailable."""
        self._check_free_space()
        lifetime_s = self._settings.url_lifetime_s
        at_ms = round((self._clock() + lifetime_s) * 1000)
        upload_id = new_upload_id(at_ms, caller.owner)
        key = incoming_key(upload_id)
        url = self._objects.put_url(key, lifetime_s=lifetime_s)
        return NewUpload(
            upload_id,
            uri=f"s3://{self._settings.bucket}/{key}",
            url=url,
            signature="" if url else self._sign(upload_id),
            expires_at_ms=at_ms,
            max_bytes=self.max_bytes,
        )

    def store(self, upload_id: str, signature: str, chunks: Iterable[bytes], *, size: int | None) -> int:
        """Store the bytes of an upload; returns their number. A later call replaces the object.

        Args:
            size: number of bytes, if the client told it.

        Raises:
            ObjectNotFound: there is no such upload, or it has expired.
            PayloadTooLarge: it has too many bytes; nothing is stored.
            ServiceUnavailable: nothing is stored.
        """
        if self._chunks is None:
            raise ObjectNotFound("clients put images to the object store, and not here", expected="the URL of POST /uploads")
        if not hmac.compare_digest(signature.encode(), self._sign(upload_id).encode()):
            raise ObjectNotFound("there is no upload with this URL", expected="the URL of POST /uploads, unchanged")
        key = incoming_key(upload_id)
        if (expires_at_ms(key) or 0) <= self._clock() * 1000:
            raise ObjectNotFound("the upload has expired", expected="a new one, by POST /uploads")
        if size is not None and size > self.max_bytes:
            raise self._too_large()
        self._check_free_space()
        counted = _Counted(chunks, self.max_bytes, self._too_large)
        self._chunks.put_chunks(key, counted)
        return counted.size

    def _sign(self, upload_id: str) -> str:
        return hmac.new(self._secret().encode(), upload_id.encode(), hashlib.sha256).hexdigest()

    def _too_large(self) -> PayloadTooLarge:
        limit = self.max_bytes
        return PayloadTooLarge(f"the upload has more than {limit} bytes", field="body", expected=f"at most {limit} bytes")


class _Counted:
    """Pieces of a body; raises an error at the first piece over the limit."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int, error: Callable[[], PayloadTooLarge]) -> None:
        self._chunks = chunks
        self._max_bytes = max_bytes
        self._error = error
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            if self.size > self._max_bytes:
                raise self._error()
            yield chunk
