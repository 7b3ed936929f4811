"""Client of the S3 store: its connections, its credentials, and the meaning of its errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider
from minio.error import MinioException, S3Error
from minio.helpers import BaseURL

from inference.errors import ConfigurationError, InferenceError, ServiceUnavailable, StorageFull
from inference.runtime.tls import authority_context
from inference.settings import S3Settings
from inference.storage.breaker import Breaker, ServerIsSilentError

#: Error codes that concern one object, not the state of the server.
_REFUSED = {"EntityTooLarge", "EntityTooSmall", "InvalidArgument", "InvalidRequest", "MetadataTooLarge", "KeyTooLongError"}
#: Error codes of MinIO and Ceph for a full disk or quota.
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
#: Seconds for which no call is made after the server has timed out.
PAUSE_S = 5.0
_DEFAULT_REGION = "us-east-1"


def connect(settings: S3Settings, provider: Provider | None, connections: int) -> Minio:
    """Make a client.

    Args:
        provider: of the keys; None: requests are anonymous.
        connections: number of connections that stay open between calls.

    Raises:
        ConfigurationError: the endpoint, the region or the file of the authorities is not valid.
    """
    try:
        client = Minio(
            _address(settings),
            credentials=provider,
            secure=settings.has_tls,
            region=_region(settings),
            http_client=_pool(settings, connections, has_authorities=settings.has_tls),
        )
    except ValueError as error:
        raise ConfigurationError(f"s3.endpoint: {error}", field="s3.endpoint") from error
    if settings.addressing == "virtual":
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif settings.addressing == "path":
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def credentials_of(settings: S3Settings) -> Provider | None:
    """Return the source of the keys; None if requests are anonymous. Raises ConfigurationError: the file of the authorities."""
    if settings.credentials == "role":
        return RoleCredentials(settings)
    access_key, secret_key, token = (
        secret.get_secret_value() for secret in (settings.access_key, settings.secret_key, settings.session_token)
    )
    return StaticProvider(access_key, secret_key, token or None) if access_key else None


class RoleCredentials(Provider):
    """Temporary keys of this process' role, renewed before they expire. Safe to share between threads and greenlets.

    The variables of the environment are AWS': they are read once, files that they name at each renewal.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._provider = IamAwsProvider(
            custom_endpoint=settings.role_endpoint,
            region=settings.region,
            http_client=_pool(settings, connections=1, has_authorities=settings.role_endpoint is not None),
        )
        self._lock = threading.Lock()
        self._breaker = Breaker(PAUSE_S, is_timeout=lambda _: True)  # any failure: waiting callers must not repeat it in turn

    def retrieve(self) -> Credentials:
        """Return the keys. Raises MinioException, urllib3.exceptions.HTTPError, ServerIsSilentError: there are none now."""
        with self._lock, self._breaker.guard():
            try:
                return self._provider.retrieve()
            except (ValueError, LookupError, SyntaxError, OSError) as error:  # as the provider finds an answer malformed
                raise MinioException(f"no keys for the role: {error}") from error


def _address(settings: S3Settings) -> str:
    return settings.endpoint.rpartition("://")[2]


def _region(settings: S3Settings) -> str:
    """Return the region to sign for: without one the client would ask the server first. Raises ValueError."""
    scheme = "https" if settings.has_tls else "http"
    return settings.region or BaseURL(f"{scheme}://{_address(settings)}", None).region or _DEFAULT_REGION


def _pool(settings: S3Settings, connections: int, *, has_authorities: bool) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=connections,
        timeout=urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s),
        ssl_context=authority_context("s3", settings.ca_file) if has_authorities else None,
        # No retry after a time-out: the call would wait three times for a server that hangs.
        retries=urllib3.Retry(total=2, read=0, connect=1, backoff_factor=0.1, status_forcelist=(502, 503, 504)),
    )


def is_timeout(error: BaseException) -> bool:
    """Return whether the server did not answer in time."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    return isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError)


@contextmanager
def unavailable_when_failing() -> Iterator[None]:
    """Raise errors of the client in the block as the service's."""
    try:
        yield
    except ServerIsSilentError as error:
        raise ServiceUnavailable("the object store did not answer a moment ago", retry_after_s=PAUSE_S) from error
    except S3Error as error:
        if error.code in _REFUSED:
            raise InferenceError(f"the object store refuses the object: {error.code}") from error
        if error.code in _FULL:
            raise StorageFull("the object store is full", retry_after_s=30) from error
        raise unavailable("the object store answers with an error", error) from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise unavailable("the object store does not answer", error) from error


def unavailable(public: str, error: Exception) -> ServiceUnavailable:
    """Return the service's error for an error of the client; its detail has the client's words, which `public` leaves out."""
    return ServiceUnavailable(f"{public}: {error}", public=public, retry_after_s=5)
