"""What every object store does, and how the local one fails."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.fakes import FakeObjectStore
from support.real_servers import minio_settings
from support.small_files import run_with_small_files
from support.waiting import together

from inference.errors import ObjectNotFound, PayloadTooLarge, ServiceUnavailable
from inference.storage import ObjectStore
from inference.storage.local import LocalObjectStore
from inference.storage.minio import MinioObjectStore

KEY = "uploads/2026/01/31/task"
BYTES = bytes(range(256)) * 400


@pytest.fixture(params=["local", "fake", pytest.param("minio", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "local":
            return LocalObjectStore(tmp_path / "objects")
        case "minio":
            settings = minio_settings(request.getfixturevalue("services_env"))
            return MinioObjectStore(settings, f"contract-{uuid.uuid4().hex[:12]}")
    return FakeObjectStore()


@pytest.mark.parametrize("data", [BYTES, b""])
def test_what_was_put_is_there(store: ObjectStore, data: bytes) -> None:
    store.put(KEY, data)
    assert store.get(KEY) == data


def test_a_key_that_was_put_again_has_the_new_bytes(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    store.put(KEY, b"short")
    assert store.get(KEY) == b"short"


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    for call in (partial(store.get, KEY), partial(store.copy, KEY, "dead-letters/task")):
        with pytest.raises(ObjectNotFound, match=KEY):
            call()
    with pytest.raises(ObjectNotFound):
        store.get("dead-letters/task")


def test_what_is_larger_than_asked_for_is_not_read(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    assert store.get(KEY, max_bytes=len(BYTES)) == BYTES
    with pytest.raises(PayloadTooLarge, match=str(len(BYTES))):
        store.get(KEY, max_bytes=len(BYTES) - 1)


@pytest.mark.parametrize(
    "key", ["uploads", "uploads/2026/01/31", f"{KEY}/below", f"uploads/{'x' * 300}", "s3://nobodys-bucket/a"]
)
def test_what_is_no_object_is_not_found(store: ObjectStore, key: str) -> None:
    store.put(KEY, BYTES)
    with pytest.raises(ObjectNotFound):
        store.get(key)


def test_what_was_deleted_is_gone_and_deleting_again_is_fine(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    store.delete(KEY)
    store.delete(KEY)
    with pytest.raises(ObjectNotFound):
        store.get(KEY)


def test_deleting_one_leaves_its_neighbours(store: ObjectStore) -> None:
    store.put(KEY, b"one")
    store.put(KEY + "2", b"two")
    store.delete(KEY)
    assert store.get(KEY + "2") == b"two"


def test_a_copy_outlives_its_source(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    store.copy(KEY, "dead-letters/task")
    store.delete(KEY)
    assert store.get("dead-letters/task") == BYTES


@pytest.mark.parametrize("key", ["../x", "uploads/../../x", "/etc/passwd", "/"])
def test_a_key_that_leads_out_of_the_store_is_refused(store: ObjectStore, tmp_path: Path, key: str) -> None:
    (tmp_path / "x").write_bytes(b"somebody else's")
    store.put(KEY, BYTES)
    calls: list[Callable[[], object]] = [
        partial(store.get, key),
        partial(store.put, key, b"mine"),
        partial(store.delete, key),
        partial(store.copy, KEY, key),
        partial(store.copy, key, KEY),
    ]
    for call in calls:
        with pytest.raises(ObjectNotFound):
            call()
    assert (tmp_path / "x").read_bytes() == b"somebody else's"
    assert store.get(KEY) == BYTES


def test_eight_threads_may_put_the_first_objects_of_a_day(store: ObjectStore) -> None:
    keys = [f"uploads/2026/02/01/task-{number}" for number in range(8)]
    together([partial(store.put, key, key.encode()) for key in keys])
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]


def test_a_store_that_is_up_answers(store: ObjectStore) -> None:
    store.ping()


class TestLocal:
    """How a folder fails. The tests may run as root, who may write everywhere: a file stands where a folder should be."""

    @pytest.fixture
    def broken(self, tmp_path: Path) -> LocalObjectStore:
        (tmp_path / "uploads").write_bytes(b"a file")
        return LocalObjectStore(tmp_path)

    @pytest.fixture
    def hopeless(self, tmp_path: Path) -> LocalObjectStore:
        (tmp_path / "objects").write_bytes(b"a file")
        return LocalObjectStore(tmp_path / "objects")

    def test_a_put_that_fails_leaves_nothing(self, broken: LocalObjectStore, tmp_path: Path) -> None:
        with pytest.raises(ServiceUnavailable) as caught:
            broken.put(KEY, BYTES)
        assert caught.value.retry_after_s
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("uploads", b"a file")]

    def test_a_copy_that_fails_leaves_its_source(self, broken: LocalObjectStore) -> None:
        broken.put("dead-letters/task", BYTES)
        with pytest.raises(ServiceUnavailable):
            broken.copy("dead-letters/task", KEY)
        assert broken.get("dead-letters/task") == BYTES

    def test_a_folder_that_cannot_be_is_unavailable(self, hopeless: LocalObjectStore) -> None:
        for call in (hopeless.ping, partial(hopeless.put, KEY, BYTES)):
            with pytest.raises(ServiceUnavailable, match="local object store"):
                call()

    def test_a_disk_that_fills_up_during_a_put_keeps_no_half_object(self, tmp_path: Path) -> None:
        code = f"""
import sys
from pathlib import Path
from inference.errors import ServiceUnavailable
from inference.storage.local import LocalObjectStore
store = LocalObjectStore(Path(sys.argv[-1]))
store.put("uploads/small", bytes(1000))
try:
    store.put("uploads/large", bytes({len(BYTES)}))
except ServiceUnavailable:
    print("refused")
"""
        assert run_with_small_files(code, limit_bytes=5000, folder=tmp_path) == "refused\n"
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["small"]

    def test_ping_makes_the_folder(self, tmp_path: Path) -> None:
        LocalObjectStore(tmp_path / "new" / "objects").ping()
        assert (tmp_path / "new" / "objects").is_dir()

    def test_what_is_no_regular_file_is_no_object_and_nobody_waits_for_it(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(tmp_path / "socket"))
            for key in ("pipe", "folder", "socket"):
                with pytest.raises(ObjectNotFound):
                    LocalObjectStore(tmp_path).get(key)

    def test_a_link_that_leads_out_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"somebody else's")
        (tmp_path / "objects").mkdir()
        (tmp_path / "objects" / "link").symlink_to(tmp_path / "x")
        store = LocalObjectStore(tmp_path / "objects")
        with pytest.raises(ObjectNotFound):
            store.get("link")
        with pytest.raises(ObjectNotFound):
            store.put("link", BYTES)
        assert (tmp_path / "x").read_bytes() == b"somebody else's"
