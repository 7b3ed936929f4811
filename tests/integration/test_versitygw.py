"""The store on VersityGW, which has no lifecycle rules: the service removes old uploads, as it does on MinIO for hours."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.error import S3Error
from support.real_servers import minio_settings, s3_client, versitygw_settings
from support.waiting import until

from dev.servers.servers.versitygw import VIRTUAL_DOMAIN
from inference.settings import S3Settings
from inference.storage.protocol import upload_key
from inference.storage.s3 import S3ObjectStore
from inference.storage.s3_retention import UploadRetention

NOW = datetime.now(UTC)
#: Keys that the service did not make.
STRAY = ["uploads/readme.txt", "uploads/2020/1/old", "uploads/2020/01/0x/old", "photos/2020/01/01/a", "dead-letters/task"]
#: A moment, in hours.
AT_ONCE = 1e-5


@pytest.fixture
def settings(services_env: dict[str, str]) -> S3Settings:
    return versitygw_settings(services_env)


@pytest.fixture
def store(settings: S3Settings, own_name: str) -> S3ObjectStore:
    return S3ObjectStore(settings, own_name)


@pytest.fixture
def client(settings: S3Settings) -> Minio:
    return s3_client(settings)


def keys_in(client: Minio, bucket: str) -> list[str]:
    return [str(entry.object_name) for entry in client.list_objects(bucket, recursive=True)]


def test_uploads_are_removed_without_a_rule(
    store: S3ObjectStore, client: Minio, own_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.make_bucket(own_name)
    with pytest.raises(S3Error, match="NotImplemented"):
        client.get_bucket_lifecycle(own_name)
    uploads = [upload_key(f"task-{age}", NOW - timedelta(days=age)) for age in (0, 1, 400)]
    for key in (*uploads, *STRAY):
        store.put(key, b"pixels")
    with caplog.at_level(logging.WARNING):
        assert store.apply_retention(24) is False  # they were put a moment ago, whatever their names say
        assert sorted(keys_in(client, own_name)) == sorted([*uploads, *STRAY])
        until(lambda: store.apply_retention(AT_ONCE) or sorted(keys_in(client, own_name)) == sorted(STRAY), "removal")
        store.apply_retention(None)
    assert sorted(keys_in(client, own_name)) == sorted(STRAY)
    (record,) = caplog.records
    assert record.getMessage() == "the object store takes no lifecycle rule (NotImplemented): the relay removes old uploads"


@pytest.fixture(params=["versitygw", "minio"])
def either(request: pytest.FixtureRequest, services_env: dict[str, str]) -> S3Settings:
    return {"versitygw": versitygw_settings, "minio": minio_settings}[request.param](services_env)


def test_a_call_removes_a_limited_number_and_the_next_goes_on(either: S3Settings, own_name: str) -> None:
    store, client = S3ObjectStore(either, own_name), s3_client(either)
    days = [NOW - timedelta(days=age) for age in (0, 1, 2)]
    for key in STRAY:
        store.put(key, b"pixels")
    for day in days:
        for number in range(3):
            store.put(upload_key(f"task-{number}", day), b"pixels")
    retention = UploadRetention(client, own_name, listed=4)
    calls = []

    def is_clean() -> bool:
        calls.append(retention.apply(AT_ONCE))
        return sorted(keys_in(client, own_name)) == sorted(STRAY)

    until(is_clean, "removal")
    assert calls.count(True) >= 2
    until(lambda: not retention.apply(AT_ONCE), "the end of the list")
    assert not retention.apply(AT_ONCE)


def test_a_listing_that_fails_is_taken_up_again(either: S3Settings, own_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, client = S3ObjectStore(either, own_name), s3_client(either)
    for number in range(6):
        store.put(upload_key(f"task-{number}", NOW), b"pixels")
    retention = UploadRetention(client, own_name, listed=2)
    until(lambda: retention.apply(AT_ONCE) and len(keys_in(client, own_name)) < 6, "the first removal")
    with monkeypatch.context() as patched:
        patched.setattr(client, "remove_objects", lambda *_: (_ for _ in ()).throw(OSError("broken pipe")))
        with pytest.raises(OSError, match="broken pipe"):
            retention.apply(AT_ONCE)
    until(lambda: retention.apply(AT_ONCE) or not keys_in(client, own_name), "removal")


def put(url: str, address: str, data: bytes) -> int:
    """Put bytes to a URL at the address of its server, whose name need not resolve; gives the status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", data, {"Host": parts.netloc})
        return connection.getresponse().status
    finally:
        connection.close()


def test_clients_put_objects_by_urls(either: S3Settings, own_name: str) -> None:
    store, address = S3ObjectStore(either, own_name), either.endpoint.removeprefix("http://")
    url = store.put_url("incoming/a", lifetime_s=60)
    assert put(url, address, b"pixels") == 200
    assert store.get("incoming/a") == b"pixels"
    assert put(url.replace("incoming/a", "incoming/b"), address, b"pixels") == 403
    assert put(store.put_url("incoming/c", lifetime_s=1).replace("X-Amz-Expires=1", "X-Amz-Expires=9999"), address, b"") == 403


@pytest.mark.parametrize("addressing", ["auto", "path", "virtual"])
def test_the_bucket_is_in_the_path_or_in_the_host(
    settings: S3Settings, store: S3ObjectStore, own_name: str, addressing: str
) -> None:
    address = settings.endpoint.removeprefix("http://")
    named = f"{VIRTUAL_DOMAIN}:{address.rpartition(':')[2]}"
    store.put("first", b"makes the bucket")
    signer = S3ObjectStore(settings.model_copy(update={"public_endpoint": f"http://{named}", "addressing": addressing}), own_name)
    signer._has_bucket = True
    url = signer.put_url("incoming/a", lifetime_s=60)
    host = urlsplit(url).netloc
    assert host == (f"{own_name}.{named}" if addressing == "virtual" else named)
    assert put(url, address, b"pixels") == 200
    assert store.get("incoming/a") == b"pixels"


@pytest.fixture(autouse=True)
def clean(services_env: dict[str, str], own_name: str) -> Iterator[None]:
    yield
    for of in (versitygw_settings, minio_settings):
        client = s3_client(of(services_env))
        if client.bucket_exists(own_name):
            for key in keys_in(client, own_name):
                client.remove_object(own_name, key)
            client.remove_bucket(own_name)
