"""The store on a real MinIO, in addition to the contract of every store (tests/contract/test_object_store_contract.py)."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import quote

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from support.real_servers import NOBODY, minio_client, minio_settings
from support.waiting import until

from inference.errors import ObjectNotFound, ServiceUnavailable
from inference.storage.protocol import upload_key
from inference.storage.s3 import S3ObjectStore

KEY = "uploads/2026/01/31/task"


@pytest.fixture
def client(services_env: dict[str, str]) -> Minio:
    return minio_client(services_env)


@pytest.fixture
def store(services_env: dict[str, str], own_name: str) -> S3ObjectStore:
    return S3ObjectStore(minio_settings(services_env), own_name)


def rules(client: Minio, bucket: str) -> dict[str | None, tuple[str | None, int | None]]:
    """Prefix and days, by the rule's name."""
    lifecycle = client.get_bucket_lifecycle(bucket)
    return {
        rule.rule_id: (
            rule.rule_filter.prefix if rule.rule_filter else None,
            rule.expiration.days if rule.expiration else None,
        )
        for rule in (lifecycle.rules if lifecycle else [])
    }


def test_an_upload_has_its_type_its_metadata_and_its_digest(store: S3ObjectStore, client: Minio, own_name: str) -> None:
    store.put(KEY, b"pixels", content_type="image/png", metadata={"request-id": "größer"})
    found = client.stat_object(own_name, KEY)
    assert found.content_type == "image/png"
    assert found.metadata is not None
    assert found.metadata["x-amz-meta-request-id"] == "gr%C3%B6%C3%9Fer"
    assert found.metadata["x-amz-meta-sha256"] == hashlib.sha256(b"pixels").hexdigest()


@pytest.mark.parametrize("request_id", ["x" * 256, "\u4e2d" * 256, "\U0001f600" * 256, "\u0000\r\n" * 85])
def test_a_request_id_that_s3_has_no_room_for_is_left_out(
    store: S3ObjectStore, client: Minio, own_name: str, request_id: str
) -> None:
    store.put(KEY, b"pixels", metadata={"request-id": request_id})
    metadata = client.stat_object(own_name, KEY).metadata
    assert metadata is not None
    assert metadata.get("x-amz-meta-request-id", "") in ("", quote(request_id))
    assert ("x-amz-meta-request-id" in metadata) is (len(quote(request_id)) <= 1800)
    assert store.get(KEY) == b"pixels"


@pytest.mark.parametrize("kind", [None, "", "image/\u0436", "image/png\r\nx: y"])
def test_a_type_that_no_header_can_say_is_left_out(store: S3ObjectStore, client: Minio, own_name: str, kind: str | None) -> None:
    store.put(KEY, b"pixels", content_type=kind)
    assert client.stat_object(own_name, KEY).content_type == "application/octet-stream"


@pytest.mark.parametrize("first", ["put", "apply_retention"])
def test_the_bucket_is_made_by_what_comes_first(store: S3ObjectStore, client: Minio, own_name: str, first: str) -> None:
    assert not client.bucket_exists(own_name)
    {"put": partial(store.put, KEY, b"pixels"), "apply_retention": partial(store.apply_retention, 24)}[first]()
    assert client.bucket_exists(own_name)


def test_objects_of_another_bucket_can_be_read_and_kept(
    store: S3ObjectStore, services_env: dict[str, str], own_name: str
) -> None:
    other = f"{own_name}-other"
    S3ObjectStore(minio_settings(services_env), other).put("photos/1", b"pixels")
    assert store.get(f"s3://{other}/photos/1", max_bytes=6) == b"pixels"
    store.copy(f"s3://{other}/photos/1", "dead-letters/1")
    assert store.get("dead-letters/1") == b"pixels"
    for key in (f"s3://{other}/photos/2", f"s3://{other}/", f"s3://{other}/../1", f"s3://{own_name}-nobodys/photos/1"):
        with pytest.raises(ObjectNotFound):
            store.get(key)


def test_nothing_is_written_to_another_bucket(store: S3ObjectStore, own_name: str) -> None:
    for call in (partial(store.put, f"s3://{own_name}/1", b"pixels"), partial(store.delete, f"s3://{own_name}/1")):
        with pytest.raises(ObjectNotFound):
            call()


def test_a_copy_keeps_its_type(store: S3ObjectStore, client: Minio, own_name: str) -> None:
    store.put(KEY, b"pixels", content_type="image/png")
    store.copy(KEY, "dead-letters/task")
    assert client.stat_object(own_name, "dead-letters/task").content_type == "image/png"


def test_our_retention_rule_is_added_to_a_foreign_one(store: S3ObjectStore, client: Minio, own_name: str) -> None:
    foreign = Rule(ENABLED, rule_filter=Filter(prefix="theirs/"), rule_id="foreign", expiration=Expiration(days=30))
    client.make_bucket(own_name)
    client.set_bucket_lifecycle(own_name, LifecycleConfig([foreign]))
    theirs = {"foreign": ("theirs/", 30)}

    for days in (7, 3, 3):
        store.apply_retention(days * 24)
        assert rules(client, own_name) == theirs | {"inference-uploads-retention": ("uploads/", days)}
    store.apply_retention(None)
    assert rules(client, own_name) == theirs


def test_hours_that_no_rule_has_are_counted_by_the_service(store: S3ObjectStore, client: Minio, own_name: str) -> None:
    now = datetime.now(UTC)
    keys = [upload_key("task", now - timedelta(days=age)) for age in (0, 1)]
    for key in (*keys, "dead-letters/task"):
        store.put(key, b"pixels")
    store.apply_retention(36)
    assert rules(client, own_name) == {"inference-uploads-retention": ("uploads/", 2)}
    assert [store.size(key) for key in keys] == [6, 6]
    until(lambda: store.apply_retention(1e-5) or not list(client.list_objects(own_name, "uploads/", recursive=True)), "removal")
    assert store.size("dead-letters/task") == 6


def test_the_only_rule_is_taken_away(store: S3ObjectStore, client: Minio, own_name: str) -> None:
    store.apply_retention(168)
    store.apply_retention(None)
    store.apply_retention(None)
    assert rules(client, own_name) == {}


def test_a_server_that_is_down_is_unavailable(services_env: dict[str, str]) -> None:
    store = S3ObjectStore(minio_settings(services_env, endpoint=NOBODY), "bucket")
    calls: list[Callable[[], object]] = [
        store.ping,
        partial(store.put, KEY, b"pixels"),
        partial(store.get, KEY),
        partial(store.copy, KEY, "dead-letters/task"),
        partial(store.delete, KEY),
        partial(store.apply_retention, 168),
    ]
    for call in calls:
        with pytest.raises(ServiceUnavailable, match="object store"):
            call()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_hangs_is_waited_for_once(services_env: dict[str, str], silent: str) -> None:
    store = S3ObjectStore(minio_settings(services_env, endpoint=silent, read_timeout_s=1.0), "bucket")
    with pytest.raises(ServiceUnavailable):
        store.put(KEY, b"pixels")
    for call in [partial(store.put, KEY, b"pixels"), partial(store.get, KEY), partial(store.delete, KEY)] * 10:
        with pytest.raises(ServiceUnavailable, match="a moment ago"):
            call()


def test_keys_that_are_wrong_are_unavailable(services_env: dict[str, str], own_name: str) -> None:
    store = S3ObjectStore(minio_settings(services_env, secret_key="wrong"), own_name)
    with pytest.raises(ServiceUnavailable):
        store.put(KEY, b"pixels")
