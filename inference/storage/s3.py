"""Object store on a bucket of an S3 store, such as MinIO."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import IO
from urllib.parse import quote

from minio.commonconfig import ENABLED, CopySource
from minio.error import S3Error
from minio.versioningconfig import SUSPENDED

from inference.errors import ObjectNotFound
from inference.settings import S3Settings
from inference.storage.breaker import Breaker
from inference.storage.protocol import bucket_and_key, is_path, too_large
from inference.storage.s3_client import PAUSE_S, connect, credentials_of, is_timeout, unavailable, unavailable_when_failing
from inference.storage.s3_retention import UploadRetention

#: Error code of a missing bucket, which the first upload makes.
_NO_BUCKET = "NoSuchBucket"
_MISSING = {"NoSuchKey", "NoSuchObject", "NoSuchVersion", "KeyTooLongError", "XMinioInvalidObjectName", _NO_BUCKET}
_FORBIDDEN = "AccessDenied"
#: Part of the 2 KB that S3 allows; the digest takes about 100 bytes.
_MAX_METADATA_BYTES = 1800
_MADE_MEANWHILE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
#: Error codes of servers that keep no versions.
_NO_VERSIONING = {"NotImplemented", "VersioningNotConfigured", "MethodNotAllowed"}
_CHUNK_BYTES = 2**20
#: S3's limit for a part that is not the last.
_LEAST_PART_BYTES = 5 * 2**20
_ANY_TYPE = "application/octet-stream"
#: Content types that a header may contain.
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


class S3ObjectStore:
    """`ObjectStore` on one bucket, which is made if it is missing.

    Args:
        connections: number of connections that stay open between calls; as many as the API stores images concurrently.
    """

    is_local = False

    def __init__(self, settings: S3Settings, bucket: str, *, connections: int = 256) -> None:
        self._bucket = bucket
        self._breaker = Breaker(PAUSE_S, is_timeout=is_timeout)
        provider = credentials_of(settings)
        self._client = connect(settings, provider, connections)
        self._retention = UploadRetention(self._client, bucket)
        public = settings.model_copy(update={"endpoint": settings.public_endpoint or settings.endpoint})
        #: signs URLs for clients, and makes no connections
        self._signer = connect(public, provider, connections=1)
        self._has_bucket = False

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_durable: bool = True,
    ) -> None:
        del is_durable  # S3 has no such choice
        _check(key)
        kind = content_type if content_type and _MEDIA_TYPE.fullmatch(content_type) else _ANY_TYPE
        noted = {"sha256": hashlib.sha256(data).hexdigest(), **_as_headers(metadata or {})}

        def upload() -> None:
            self._client.put_object(
                self._bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type=kind,
                metadata=dict(noted),
                part_size=max(len(data), _LEAST_PART_BYTES),  # one request: a failed put in parts would leave some of them
            )

        with self._guarded():
            self._write(upload)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        bucket, name = self._locate(key)
        with self._guarded(), self._missing_is_not_found(bucket, key):
            response = self._client.get_object(bucket, name)
            try:
                size = int(response.headers["Content-Length"])
                if max_bytes is not None and size > max_bytes:
                    raise too_large(key, size, max_bytes)
                return response.read()
            finally:
                response.close()
                response.release_conn()

    def size(self, key: str) -> int:
        bucket, name = self._locate(key)
        with self._guarded(), self._missing_is_not_found(bucket, key):
            return self._client.stat_object(bucket, name).size or 0

    def put_url(self, key: str, *, lifetime_s: float) -> str:
        _check(key)
        if not self._has_bucket:
            with self._guarded():
                if not self._client.bucket_exists(self._bucket):
                    self._make_bucket()
            self._has_bucket = True
        return self._signer.presigned_put_object(self._bucket, key, timedelta(seconds=lifetime_s))

    def delete(self, key: str) -> None:
        _check(key)
        with self._guarded(), contextlib.suppress(ObjectNotFound), self._missing_is_not_found(self._bucket, key):
            self._client.remove_object(self._bucket, key)

    def erase(self, key: str) -> None:
        """Delete an object. A bucket with versions would only hide it: there each version is deleted."""
        self.delete(key)
        with self._guarded(), contextlib.suppress(ObjectNotFound), self._missing_is_not_found(self._bucket, key):
            if not self._has_versions():
                return
            for version in self._client.list_objects(self._bucket, key, include_version=True):
                if version.object_name == key:
                    self._client.remove_object(self._bucket, key, version_id=version.version_id)

    def _has_versions(self) -> bool:
        try:
            return self._client.get_bucket_versioning(self._bucket).status in {ENABLED, SUSPENDED}
        except S3Error as error:
            if error.code in _NO_VERSIONING:
                return False
            raise

    def copy(self, source: str, target: str) -> None:
        """Copy an object on the server, without a transfer of its bytes."""
        bucket, name = self._locate(source)
        _check(target)
        with self._guarded(), self._missing_is_not_found(bucket, source):
            self._write(lambda: self._client.copy_object(self._bucket, target, CopySource(bucket, name)))

    def list_keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        with self._guarded():
            found = self._client.list_objects(self._bucket, prefix, start_after=after or None)
            try:
                names = (entry.object_name for entry in found if not entry.is_dir)
                return [name for name in itertools.islice(names, limit) if name is not None]
            except S3Error as error:
                if error.code != _NO_BUCKET:
                    raise
                return []

    def ping(self) -> None:
        with self._guarded():
            self._client.bucket_exists(self._bucket)  # the answer does not matter: the first put makes the bucket

    def apply_retention(self, hours: float | None) -> bool:
        with self._guarded():
            if not self._client.bucket_exists(self._bucket):
                self._make_bucket()
            return self._retention.apply(hours)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with unavailable_when_failing(), self._breaker.guard():
            yield

    @contextmanager
    def _missing_is_not_found(self, bucket: str, key: str) -> Iterator[None]:
        """Raise ObjectNotFound for missing objects, and for objects in other buckets that the user may not read."""
        try:
            yield
        except S3Error as error:
            if error.code in _MISSING or (error.code == _FORBIDDEN and bucket != self._bucket):
                raise ObjectNotFound(f"there is no object {key}") from error
            raise

    def _locate(self, key: str) -> tuple[str, str]:
        """Return the bucket and the key of an object to read."""
        bucket, name = bucket_and_key(key) or (self._bucket, key)
        _check(name)
        return bucket, name

    def _write(self, call: Callable[[], object]) -> None:
        """Call `call`; if the bucket is missing, make it and call again."""
        try:
            call()
        except S3Error as error:
            if error.code != _NO_BUCKET:
                raise
            self._make_bucket()
            call()

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code not in _MADE_MEANWHILE:
                raise unavailable("the bucket of the images does not exist, and cannot be created", error) from error


class S3ObjectReader:
    """`ObjectReader` on an S3 store."""

    def __init__(self, settings: S3Settings) -> None:
        self._client = connect(settings, credentials_of(settings), connections=1)

    def etag(self, bucket: str, key: str) -> str:
        with unavailable_when_failing(), self._missing_is_named(bucket, key):
            return self._client.stat_object(bucket, key).etag or ""

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        with unavailable_when_failing(), self._missing_is_named(bucket, key):
            response = self._client.get_object(bucket, key)
            try:
                for chunk in response.stream(_CHUNK_BYTES):  # raises if fewer bytes come than were announced
                    target.write(chunk)
                return str(response.headers.get("etag", "")).strip('"')
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _missing_is_named(self, bucket: str, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code not in _MISSING:
                raise
            # the answer to a HEAD request does not tell whether the bucket or the object is missing
            if not self._client.bucket_exists(bucket):
                raise ObjectNotFound(f"there is no bucket {bucket}", public="there is no such bucket") from error
            public = f"there is no object {key}"
            raise ObjectNotFound(f"{public} in the bucket {bucket}", public=public) from error


def _check(key: str) -> None:
    """Raise ObjectNotFound for a key that is not a path below a folder: all stores have the same valid keys."""
    if not is_path(key):
        raise ObjectNotFound(f"{key} is not a key of this store")


def _as_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata in the form of headers. S3 allows 2 KB in total: a value that is too long for its share is left out."""
    quoted = {name: quote(value) for name, value in metadata.items()}
    return {name: value for name, value in quoted.items() if len(value) <= _MAX_METADATA_BYTES // max(1, len(quoted))}
