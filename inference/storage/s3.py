"""Object store on a bucket of MinIO, or of any other S3."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO
from urllib.parse import quote

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, CopySource, Filter
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import SUSPENDED

from inference.errors import ConfigurationError, InferenceError, ObjectNotFound, ServiceUnavailable, StorageFull
from inference.runtime.tls import authority_context
from inference.settings import S3Settings
from inference.storage.breaker import Breaker, ServerIsSilentError
from inference.storage.protocol import UPLOADS_PREFIX, bucket_and_key, day_prefix, is_path, too_large

logger = logging.getLogger(__name__)

#: Id of this service's rule among the lifecycle rules of the bucket.
RETENTION_RULE_ID = "inference-uploads-retention"

#: Error code of a missing bucket, which the first upload makes.
_NO_BUCKET = "NoSuchBucket"
_MISSING = {"NoSuchKey", "NoSuchObject", "NoSuchVersion", "KeyTooLongError", "XMinioInvalidObjectName", _NO_BUCKET}
_FORBIDDEN = "AccessDenied"
#: Error codes that concern one object, not the state of the server.
_REFUSED = {"EntityTooLarge", "EntityTooSmall", "InvalidArgument", "InvalidRequest", "MetadataTooLarge", "KeyTooLongError"}
#: Error codes of MinIO and Ceph for a full disk or quota.
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
#: Part of the 2 KB that S3 allows; the digest takes about 100 bytes.
_MAX_METADATA_BYTES = 1800
#: Seconds for which no call is made after the server has timed out.
_PAUSE_S = 5.0
_MADE_MEANWHILE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
#: Error codes of servers that keep no versions.
_NO_VERSIONING = {"NotImplemented", "VersioningNotConfigured", "MethodNotAllowed"}
_CHUNK_BYTES = 2**20
_HOURS_A_DAY = 24
#: Days before the end of the retention in which uploads may be left: the rule rounds up, and acts at midnight.
_DAYS_BEFORE_RULE = 4
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
        self._breaker = Breaker(_PAUSE_S, is_timeout=_is_timeout)
        self._client = _connect(settings, connections)
        public = settings.model_copy(update={"endpoint": settings.public_endpoint or settings.endpoint})
        #: signs URLs for clients, and makes no connections
        self._signer = _connect(public, connections=1)
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

    def apply_retention(self, hours: float | None) -> None:
        """Set this service's lifecycle rule in addition to other rules of the bucket; None removes it.

        A rule counts whole days. If that is not exact, uploads that are too old are also removed now.
        """
        days = None if hours is None else math.ceil(hours / _HOURS_A_DAY)
        with self._guarded():
            if not self._client.bucket_exists(self._bucket):
                self._make_bucket()
            present = self._client.get_bucket_lifecycle(self._bucket)
            others = [rule for rule in present.rules if rule.rule_id != RETENTION_RULE_ID] if present else []
            ours = [] if days is None else [_retention_rule(days)]
            if others or ours:
                self._client.set_bucket_lifecycle(self._bucket, LifecycleConfig([*others, *ours]))
            elif present:
                self._client.delete_bucket_lifecycle(self._bucket)
            if hours is not None and hours % _HOURS_A_DAY:
                self._remove_older(datetime.now(UTC) - timedelta(hours=hours))

    def _remove_older(self, first_kept: datetime) -> None:
        """Remove the uploads that were put before a time, of the days that the rule may not have removed yet."""
        for age in range(_DAYS_BEFORE_RULE):
            found = self._client.list_objects(self._bucket, day_prefix(first_kept.date() - timedelta(days=age)))
            old = (entry for entry in found if entry.last_modified is not None and entry.last_modified < first_kept)
            names = (DeleteObject(entry.object_name) for entry in old if entry.object_name is not None)
            for error in self._client.remove_objects(self._bucket, names):
                logger.warning("the old upload %s cannot be removed: %s", error.name, error.code)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with _unavailable_when_failing(), self._breaker.guard():
            yield

    @contextmanager
    def _missing_is_not_found(self, bucket: str, key: str) -> Iterator[None]:
        """Raise ObjectNotFound for what is missing, and for what the user may not read in another bucket than the service's."""
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
                raise


class S3ObjectReader:
    """`ObjectReader` on MinIO, or any other S3."""

    def __init__(self, settings: S3Settings) -> None:
        self._client = _connect(settings, connections=1)

    def etag(self, bucket: str, key: str) -> str:
        with _unavailable_when_failing(), self._missing_is_named(bucket, key):
            return self._client.stat_object(bucket, key).etag or ""

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        with _unavailable_when_failing(), self._missing_is_named(bucket, key):
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


def _connect(settings: S3Settings, connections: int) -> Minio:
    """Make a client. Raises ConfigurationError: the endpoint, the region or the file of the authorities is not valid."""
    pool = urllib3.PoolManager(
        maxsize=connections,
        timeout=urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s),
        ssl_context=authority_context("s3", settings.ca_file) if settings.has_tls else None,
        # No retry after a time-out: the call would wait three times for a server that hangs.
        retries=urllib3.Retry(total=2, read=0, connect=1, backoff_factor=0.1, status_forcelist=(502, 503, 504)),
    )
    try:
        return Minio(
            settings.endpoint.rpartition("://")[2],
            access_key=settings.access_key.get_secret_value(),
            secret_key=settings.secret_key.get_secret_value(),
            secure=settings.has_tls,
            region=settings.region or "us-east-1",  # without a region the client asks the server for it first
            http_client=pool,
        )
    except ValueError as error:
        raise ConfigurationError(f"s3.endpoint: {error}", field="s3.endpoint") from error


def _retention_rule(days: int) -> Rule:
    return Rule(ENABLED, rule_filter=Filter(prefix=UPLOADS_PREFIX), rule_id=RETENTION_RULE_ID, expiration=Expiration(days=days))


def _check(key: str) -> None:
    """Raise ObjectNotFound for a key that is not a path below a folder: all stores have the same valid keys."""
    if not is_path(key):
        raise ObjectNotFound(f"{key} is not a key of this store")


def _as_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata in the form of headers. S3 allows 2 KB in total: a value that is too long for its share is left out."""
    quoted = {name: quote(value) for name, value in metadata.items()}
    return {name: value for name, value in quoted.items() if len(value) <= _MAX_METADATA_BYTES // max(1, len(quoted))}


def _is_timeout(error: BaseException) -> bool:
    """Return whether the server did not answer in time."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    return isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError)


@contextmanager
def _unavailable_when_failing() -> Iterator[None]:
    try:
        yield
    except ServerIsSilentError as error:
        raise ServiceUnavailable("the object store did not answer a moment ago", retry_after_s=_PAUSE_S) from error
    except S3Error as error:
        if error.code in _REFUSED:
            raise InferenceError(f"the object store refuses the object: {error.code}") from error
        if error.code in _FULL:
            raise StorageFull("the object store is full", retry_after_s=30) from error
        raise _silent(error) from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _silent(error) from error


def _silent(error: Exception) -> ServiceUnavailable:
    public = "the object store does not answer"
    return ServiceUnavailable(f"{public}: {error}", public=public, retry_after_s=5)
