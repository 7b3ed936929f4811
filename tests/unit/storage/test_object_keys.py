"""Names of objects that come from requests and messages: none leads out of the store, in any of the places that take one."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import ConfigurationError, ObjectNotFound
from inference.models.locations import AllowedPlaces, FileLocation
from inference.settings import S3Settings
from inference.storage.local import LocalObjectStore
from inference.storage.protocol import is_path
from inference.storage.s3 import S3ObjectStore

#: Keys that are no path below a folder.
OUTSIDE = (
    *(
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/..",
        "a/../b",
        "a/../../b",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "/a",
        "a/b/..",
        "\0",
        "a\0b",
    ),
)
#: Keys that look like one, and are a name like any other.
INSIDE = ("...", "a..b", "..a/b", "a\\..\\b", "%2e%2e/b", "a/..%2f/b", "\uff0e\uff0e/b", "~/b", "C:b")


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_key_that_leads_out_is_refused_by_every_place(tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_text("x")
    store = LocalObjectStore(tmp_path / "store")
    minio = S3ObjectStore(S3Settings(endpoint="127.0.0.1:1"), "inference")
    assert not is_path(key)
    for refuse in (store.get, store.size, store.delete, minio.get, minio.size, minio.delete):
        with pytest.raises(ObjectNotFound):
            refuse(key)
    with pytest.raises(ObjectNotFound):
        store.put(key, b"x")
    with pytest.raises(ObjectNotFound):
        minio.put(key, b"x")
    with pytest.raises(ValueError, match=r"is not an object's key|must be a path"):
        FileLocation.parse(f"s3://models/{key}")


@pytest.mark.parametrize("key", INSIDE)
def test_a_key_that_only_looks_like_it_stays_below_the_folder(tmp_path: Path, key: str) -> None:
    store = LocalObjectStore(tmp_path / "store")
    store.put(key, b"x")
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"x"]
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]
    assert store.get(key) == b"x"


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leads_out_of_the_store_is_not_followed(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    folder = tmp_path / "store"
    folder.mkdir()
    if link == "file":
        (folder / "a").symlink_to(outside / "secret")
    else:
        (folder / "a").symlink_to(outside)
    store = LocalObjectStore(folder)
    key = "a" if link == "file" else "a/secret"
    for call in (store.get, store.size):
        with pytest.raises(ObjectNotFound):
            call(key)
    with pytest.raises(ObjectNotFound):
        store.put(key, b"x")
    assert (outside / "secret").read_text() == "secret"


@pytest.mark.parametrize("bucket", ["other", "models.evil", "model", "modelss"])
def test_no_other_bucket_has_models(bucket: str) -> None:
    places = AllowedPlaces(folders=(), buckets=("models",), uploads=("models/uploads/",))
    places.check_object(FileLocation.parse("s3://models/m.keras"))
    with pytest.raises(ConfigurationError, match="is not in a bucket"):
        places.check_object(FileLocation.parse(f"s3://{bucket}/m.keras"))
    with pytest.raises(ConfigurationError, match="a client's upload"):
        places.check_object(FileLocation.parse("s3://models/uploads/2026/01/01/x"))


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "link", "link/secret", "/etc/passwd"])
def test_no_path_leads_out_of_the_folders_of_models(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="is not in a folder"):
        AllowedPlaces(folders=(folder,), buckets=()).check_path(folder / path)
