"""Contract of object stores, and failures of the local one."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig
from support.fakes import FakeObjectStore
from support.limited_users import limited_user
from support.real_servers import NOBODY, minio_client, minio_settings, s3_client, versitygw_settings
from support.small_files import run_with_small_files
from support.waiting import together

from inference.errors import ObjectNotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, StorageFull
from inference.settings import S3Settings
from inference.storage.client_uploads import expires_at_ms
from inference.storage.local import LocalObjectStore
from inference.storage.protocol import ObjectStore, upload_key
from inference.storage.s3 import S3ObjectStore

KEY = "uploads/2026/01/31/task"
BYTES = bytes(range(256)) * 400


_BY_RIGHTS = [pytest.param(name, marks=pytest.mark.services) for name in ("minio", "minio with the least rights", "versitygw")]


@pytest.fixture(scope="module")
def limited_settings(services_env: dict[str, str]) -> Iterator[S3Settings]:
    """A user with the rights of deploy/docker/minio-policy.json for the buckets of this fixture's tests."""
    name = f"limited-{uuid.uuid4().hex[:12]}"
    with limited_user(services_env, name, f"{name}-*") as settings:
        yield settings


@pytest.fixture(params=["local", "fake", *_BY_RIGHTS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "local":
            return LocalObjectStore(tmp_path / "objects")
        case "minio":
            settings = minio_settings(request.getfixturevalue("services_env"))
            return S3ObjectStore(settings, f"contract-{uuid.uuid4().hex[:12]}")
        case "versitygw":
            settings = versitygw_settings(request.getfixturevalue("services_env"))
            return S3ObjectStore(settings, f"contract-{uuid.uuid4().hex[:12]}")
        case "minio with the least rights":
            limited: S3Settings = request.getfixturevalue("limited_settings")
            return S3ObjectStore(limited, f"{limited.access_key.get_secret_value()}-{uuid.uuid4().hex[:12]}")
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


def test_a_size_is_known_without_the_bytes(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    assert store.size(KEY) == len(BYTES)
    with pytest.raises(ObjectNotFound):
        store.size("uploads/2026/01/31/nothing")


@pytest.mark.parametrize(
    "key", ["uploads", "uploads/2026/01/31", f"{KEY}/below", f"uploads/{'x' * 300}", "s3://nobodys-bucket/a"]
)
def test_what_is_no_object_is_not_found(store: ObjectStore, key: str) -> None:
    store.put(KEY, BYTES)
    with pytest.raises(ObjectNotFound):
        store.get(key)


def test_keys_are_listed_in_order_and_by_pages(store: ObjectStore) -> None:
    prefix = "uploads/2026/01/31/"
    assert store.list_keys(prefix, limit=10) == []
    names = [f"{number:03}" for number in (5, 1, 3, 2, 4)]
    for name in (*names, "002.bak", "9/below"):
        store.put(prefix + name, b"")
    store.put("uploads/2026/01/30/004", b"")
    store.put("uploads/2026/02/01/000", b"")
    assert store.list_keys(prefix, limit=3) == [prefix + name for name in ("001", "002", "002.bak")]
    assert store.list_keys(prefix, after=f"{prefix}002.bak", limit=10) == [prefix + name for name in ("003", "004", "005")]
    assert store.list_keys(prefix, after="uploads/2026/01/30/9", limit=1) == [f"{prefix}001"]
    assert store.list_keys(prefix, after=f"{prefix}005", limit=10) == []


def test_what_was_deleted_is_gone_and_deleting_again_is_fine(store: ObjectStore) -> None:
    store.put(KEY, BYTES)
    store.delete(KEY)
    store.delete(KEY)
    with pytest.raises(ObjectNotFound):
        store.get(KEY)


def test_what_was_erased_is_gone_and_erasing_again_is_fine(store: ObjectStore) -> None:
    for key in (KEY, f"{KEY}-longer"):
        store.put(key, BYTES)
    for _ in range(2):
        store.erase(KEY)
        with pytest.raises(ObjectNotFound):
            store.get(KEY)
    assert store.get(f"{KEY}-longer") == BYTES


@pytest.mark.services
def test_what_was_erased_has_no_version(services_env: dict[str, str]) -> None:
    name, client = f"contract-{uuid.uuid4().hex[:12]}", minio_client(services_env)
    client.make_bucket(name)
    client.set_bucket_versioning(name, VersioningConfig(ENABLED))
    store = S3ObjectStore(minio_settings(services_env), name)
    for key in (KEY, KEY, f"{KEY}-longer"):
        store.put(key, BYTES)
    store.delete(KEY)
    assert len(list(client.list_objects(name, recursive=True, include_version=True))) == 4
    store.erase(KEY)
    (left,) = client.list_objects(name, recursive=True, include_version=True)
    assert left.object_name == f"{KEY}-longer"


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


@pytest.fixture
def is_made(store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether there is anything of the store: its folder, its bucket, an object."""
    match store:
        case LocalObjectStore():
            return lambda: any(tmp_path.iterdir())
        case S3ObjectStore():
            name = request.node.callspec.params["store"]
            settings = {"versitygw": versitygw_settings}.get(name, minio_settings)(request.getfixturevalue("services_env"))
            client, bucket = s3_client(settings), store._bucket
            return lambda: client.bucket_exists(bucket)
    assert isinstance(store, FakeObjectStore)
    return lambda: bool(store.objects)


def test_a_ping_of_a_store_that_is_up_leaves_no_trace(store: ObjectStore, is_made: Callable[[], bool]) -> None:
    store.ping()
    assert not is_made()
    store.put(KEY, BYTES)
    assert is_made()
    store.ping()
    assert store.get(KEY) == BYTES


@pytest.fixture(params=["local", "fake", "minio"])
def store_that_is_down(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        (tmp_path / "objects").write_bytes(b"a file")
        return LocalObjectStore(tmp_path / "objects" / "below")
    if request.param == "minio":
        return S3ObjectStore(S3Settings(endpoint=NOBODY), "bucket")
    fake = FakeObjectStore()
    fake.available = False
    return fake


def test_a_ping_of_a_store_that_is_down_says_so(store_that_is_down: ObjectStore) -> None:
    with pytest.raises(ServiceUnavailable, match="object store") as caught:
        store_that_is_down.ping()
    assert caught.value.retry_after_s


class TestLocalChunks:
    """Objects that come in pieces."""

    def test_an_object_is_there_when_its_last_piece_has_come(self, tmp_path: Path) -> None:
        store = LocalObjectStore(tmp_path)
        seen = []

        def pieces() -> Iterator[bytes]:
            for number in range(3):
                seen.append(store.list_keys("incoming/", limit=10))
                yield bytes([number]) * 1000

        store.put(f"incoming/{'0' * 44}", b"old")
        store.put_chunks(f"incoming/{'0' * 44}", pieces())
        assert store.get(f"incoming/{'0' * 44}") == b"".join(bytes([number]) * 1000 for number in range(3))
        assert all(keys[0] == f"incoming/{'0' * 44}" for keys in seen)
        assert len(seen[-1]) == 2  # the part, which a kill may leave
        assert expires_at_ms(seen[-1][1]) == 0
        assert len(store.list_keys("incoming/", limit=10)) == 1

    @pytest.mark.parametrize("error", [RequestTimeout("too slow"), OSError(errno.ENOSPC, "full")])
    def test_pieces_that_break_off_leave_what_was_there(self, tmp_path: Path, error: Exception) -> None:
        store = LocalObjectStore(tmp_path)
        store.put("incoming/a", b"old")

        def pieces() -> Iterator[bytes]:
            yield b"new"
            raise error

        with pytest.raises(RequestTimeout if isinstance(error, RequestTimeout) else StorageFull):
            store.put_chunks("incoming/a", pieces())
        assert store.get("incoming/a") == b"old"
        assert store.list_keys("incoming/", limit=10) == ["incoming/a"]


class TestLocal:
    """Failures of a folder. The tests may run as root, who may write everywhere: a file stands where a folder should be."""

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
from inference.storage.client_uploads import expires_at_ms
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

    def test_a_link_that_leads_nowhere_is_no_folder_to_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "objects").symlink_to(tmp_path / "nowhere")
        with pytest.raises(ServiceUnavailable, match="objects is not a folder"):
            LocalObjectStore(tmp_path / "objects").ping()

    @pytest.mark.parametrize("folder", ["objects", "new/objects"], ids=["the folder", "the nearest of those above it"])
    def test_a_folder_that_may_not_be_written_is_unavailable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
    ) -> None:
        (tmp_path / "objects").mkdir()
        asked: list[object] = []
        monkeypatch.setattr("os.access", lambda path, mode: asked.append((path, mode)))
        with pytest.raises(ServiceUnavailable, match="no permission to write"):
            LocalObjectStore(tmp_path / folder).ping()
        assert asked == [(tmp_path / "objects" if folder == "objects" else tmp_path, os.R_OK | os.W_OK | os.X_OK)]

    def test_days_that_are_over_go_and_folders_that_are_no_day_stay(self, tmp_path: Path) -> None:
        store, today = LocalObjectStore(tmp_path), datetime.now(UTC)
        days = {age: upload_key("task", today - timedelta(days=age)) for age in (0, 1, 2, 400)}
        others = [
            "dead-letters/task",
            *(f"uploads/{folder}/task" for folder in ("2020/13/45", "2020/01/1x", "0/0/0", "2020/1/old")),
        ]
        for key in (*days.values(), *others):
            store.put(key, BYTES)
        store.apply_retention(None)
        assert [store.get(key) for key in days.values()] == [BYTES] * 4
        store.apply_retention(24)
        assert [age for age, key in days.items() if (tmp_path / key).exists()] == [0, 1]
        assert [store.get(key) for key in others] == [BYTES] * len(others)

    def test_a_day_that_cannot_be_removed_keeps_no_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store, today = LocalObjectStore(tmp_path), datetime.now(UTC)
        older, old = (upload_key("task", today - timedelta(days=age)) for age in (400, 300))
        for key in (older, old):
            store.put(key, BYTES)
        remove = shutil.rmtree

        def failing(folder: Path) -> None:
            if (tmp_path / older).parent == folder:
                raise PermissionError(f"no right to remove {folder}")
            remove(folder)

        monkeypatch.setattr("shutil.rmtree", failing)
        with pytest.raises(ServiceUnavailable, match="no right to remove"):
            store.apply_retention(24)
        assert [(tmp_path / key).exists() for key in (older, old)] == [True, False]

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
