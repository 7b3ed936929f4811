"""New requests are refused before a disk or the record store is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from minio.error import S3Error
from support.redis_server import own_redis_server

from inference.errors import StorageFull
from inference.runtime.free_space import FreeSpace, free_space_of
from inference.runtime.memory import usable_memory_bytes
from inference.settings import load_settings
from inference.storage.s3_client import unavailable_when_failing


class World:
    """A clock, and a record store whose memory a test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.memory = (0, 0)
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def ask(self) -> tuple[int, int]:
        self.looks += 1
        return self.memory

    def space(self, min_free_bytes: int = 0, **folders: Path) -> FreeSpace:
        return FreeSpace(folders, min_free_bytes, self.ask, clock=self.clock)


@pytest.fixture
def world() -> World:
    return World()


def test_a_disk_with_less_free_than_it_must_have_takes_nothing(world: World, tmp_path: Path) -> None:
    space = world.space(2**60, uploads=tmp_path / "not" / "there" / "yet")
    with pytest.raises(StorageFull, match=r"the disk of the uploads has \d+ MiB free, less than 1099511627776") as refused:
        space.check()
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (503, "storage_full", 30)
    assert not (tmp_path / "not").exists()


def test_a_disk_with_room_is_no_problem(world: World, tmp_path: Path) -> None:
    assert not list(world.space(1, uploads=tmp_path).problems())


def test_a_folder_that_cannot_be_looked_at_is_no_matter_of_room(world: World, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path / "loop" / "uploads", tmp_path / ("x" * 300)):
        assert not list(world.space(1, uploads=folder).problems())


def test_disks_are_not_looked_at_where_nothing_must_be_free(world: World, tmp_path: Path) -> None:
    assert not list(world.space(0, uploads=tmp_path).problems())


@pytest.mark.parametrize(("used", "limit", "is_full"), [(89, 100, False), (91, 100, True), (10**9, 0, False)])
def test_a_record_store_that_is_nearly_full_takes_nothing(world: World, used: int, limit: int, is_full: bool) -> None:
    world.memory = (used * 2**20, limit * 2**20)
    assert list(world.space().problems()) == ["the task store is nearly full: it uses 91 of 100 MiB"] * is_full


def test_it_is_looked_at_once_a_second(world: World, caplog: pytest.LogCaptureFixture) -> None:
    space = world.space()
    for _ in range(100):
        space.check()
    assert world.looks == 1
    world.memory = (100, 100)
    space.check()
    world.now = 1.0
    for _ in range(2):
        with pytest.raises(StorageFull):
            space.check()
    assert world.looks == 2
    assert len(caplog.records) == 1
    world.memory, world.now = (1, 100), 2.0
    space.check()


def test_a_real_server_says_how_full_it_is(tmp_path: Path) -> None:
    with own_redis_server() as server, redis.Redis.from_url(server.url) as client:
        memory: Any = client.info("memory")
        client.config_set("maxmemory", memory["used_memory"] + 1000)
        settings = load_settings(None, {"data_dir": tmp_path, "broker": {"url": server.url}})
        assert [problem for problem in free_space_of(settings, client).problems() if "the task store is nearly full" in problem]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_keys_is_full_in_its_normal_state(tmp_path: Path, policy: str) -> None:
    with own_redis_server() as server, redis.Redis.from_url(server.url) as client:
        memory: Any = client.info("memory")
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", memory["used_memory"] + 1000)
        options = {"data_dir": tmp_path, "broker": {"url": server.url}, "uploads": {"min_free_disk_mb": 0}}
        assert not list(free_space_of(load_settings(None, options), client).problems())


def test_a_server_that_is_down_is_no_matter_of_room(tmp_path: Path) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "uploads": {"min_free_disk_mb": 0}})
    assert not list(free_space_of(settings, redis.Redis(port=1)).problems())


@pytest.mark.parametrize("code", ["XMinioStorageFull", "QuotaExceeded"])
def test_a_full_bucket_is_told_from_a_server_that_is_down(code: str) -> None:
    arguments: dict[str, Any] = dict.fromkeys(("message", "resource", "request_id", "host_id"), "")
    with pytest.raises(StorageFull, match="the object store is full"), unavailable_when_failing():
        raise S3Error(response=None, code=code, **arguments)


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 2**20), ("max\n", None), (str(2**63), None), (None, None)])
def test_a_containers_memory_is_its_limit(tmp_path: Path, limit: str | None, expected: int | None) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    installed = usable_memory_bytes(())
    assert usable_memory_bytes((tmp_path / "memory.max",)) == (expected or installed)
