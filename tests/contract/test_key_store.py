"""Keys in the record store, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis
from support.client import wait_until
from support.keys import key_of, new_key

from inference.access import Limits, Role
from inference.errors import ServiceUnavailable
from inference.keys.key_file import WatchedKeyFile
from inference.keys.key_ring import KeyRing
from inference.keys.key_store import KeyStore
from inference.keys.key_text import new_key_text

pytestmark = pytest.mark.services

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)
LIMITS = Limits(
    requests_per_s=2.5, burst=3, images_per_day=4, bytes_per_day=5, waiting_tasks=6, max_deadline_s=7.5, max_priority=0
)


@pytest.fixture
def keys(redis_client: redis.Redis, key_prefix: str) -> Iterator[KeyStore]:
    yield KeyStore(redis_client, key_prefix)
    redis_client.delete(f"{key_prefix}:keys")


def test_key_is_read_as_it_was_added(keys: KeyStore) -> None:
    first = replace(key_of(new_key_text(), "grace", Role.ADMIN, limits=LIMITS, expires_at=NOW), created_at=NOW)
    _, second = new_key()
    keys.add(first)
    keys.add(second)
    assert keys.read().keys == {first.key_id: first, second.key_id: second}


def test_store_without_keys_has_none(keys: KeyStore) -> None:
    assert (keys.read().keys, keys.read().version) == ({}, None)


def test_keys_are_read_again_only_if_they_have_changed(keys: KeyStore) -> None:
    _, key = new_key()
    empty = keys.read()
    assert keys.read(empty) is empty
    keys.add(key)
    one = keys.read(empty)
    assert one.keys.keys() == {key.key_id}
    assert keys.read(one) is one
    keys.rotate(key.key_id, new_key()[1], NOW)
    two = keys.read(one)
    assert len(two.keys) == 2
    assert keys.read(two) is two
    keys.revoke(key.key_id)
    assert key.key_id not in keys.read(two).keys


def test_revoked_key_is_gone(keys: KeyStore) -> None:
    _, key = new_key()
    keys.add(key)
    assert keys.revoke(key.key_id)
    assert not keys.revoke(key.key_id)
    assert keys.read().keys == {}


class TestRotation:
    def test_old_key_expires_after_the_overlap(self, keys: KeyStore) -> None:
        _, old = new_key()
        _, new = new_key()
        keys.add(old)
        assert keys.rotate(old.key_id, new, NOW)
        assert keys.read().keys == {new.key_id: new, old.key_id: replace(old, expires_at=NOW)}

    def test_it_prolongs_no_life(self, keys: KeyStore) -> None:
        old = key_of(new_key_text(), expires_at=NOW)
        keys.add(old)
        assert keys.rotate(old.key_id, new_key()[1], NOW + timedelta(days=1))
        assert keys.read().keys[old.key_id].expires_at == NOW

    def test_unknown_key_gets_no_successor(self, keys: KeyStore) -> None:
        assert not keys.rotate("aB3dE6gH9k", new_key()[1], NOW)
        assert keys.read().keys == {}


def test_entry_that_is_not_valid_hides_no_other(
    keys: KeyStore, redis_client: redis.Redis, key_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = new_key()
    keys.add(key)
    for key_id, entry in (("brokenJson", "{"), ("ownerless0", '{"role": "admin"}'), (b"\xff", "{}")):
        redis_client.hset(f"{key_prefix}:keys", key_id, entry)
    assert keys.read().keys == {key.key_id: key}
    assert "brokenJson" in caplog.text


def test_store_that_is_down_says_so() -> None:
    with redis.Redis(port=1, retry=None) as client:
        keys = KeyStore(client, "test")
        for call in (keys.read, lambda: keys.add(new_key()[1]), lambda: keys.revoke("aB3dE6gH9k")):
            with pytest.raises(ServiceUnavailable):
                call()


def test_other_processes_know_of_a_change_soon(keys: KeyStore) -> None:
    ring = KeyRing(WatchedKeyFile(None), keys, is_on=True)
    text, key = new_key()
    with closing(ring):
        assert ring.find(text) is None
        keys.add(key)
        wait_until(lambda: ring.find(text) is not None, timeout_s=30, what="the new key is known")
        keys.revoke(key.key_id)
        wait_until(lambda: ring.find(text) is None, timeout_s=30, what="the revoked key is refused")
