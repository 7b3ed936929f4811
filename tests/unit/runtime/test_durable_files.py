"""Durable files are: the content of a file is synced, and every name that leads to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.runtime.durable_files import make_folders, write_durably
from inference.sinks.jsonl import JsonlSink
from inference.storage.local import LocalObjectStore


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of what was synced, in order."""
    paths: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_an_upload_is_synced_with_its_name_and_all_new_folders(tmp_path: Path, synced: list[str]) -> None:
    store = LocalObjectStore(tmp_path / "data" / "uploads")
    store.put("uploads/2026/01/31/a", b"pixels")
    folders = [tmp_path, *(tmp_path / path for path in ("data", "data/uploads", "data/uploads/uploads"))]
    folders += [folders[-1] / "2026", folders[-1] / "2026/01"]
    day = folders[-1] / "31"
    assert synced == [*map(str, folders), str(day / "a"), str(day)]
    synced.clear()
    store.put("uploads/2026/01/31/b", b"pixels")
    assert synced == [str(day / "b"), str(day)]


def test_a_copy_is_not_synced_but_its_new_folders_are(tmp_path: Path, synced: list[str]) -> None:
    store = LocalObjectStore(tmp_path)
    store.put("uploads/a", b"pixels", is_durable=False)
    store.put("uploads/b", b"pixels", is_durable=False)
    assert synced == [str(tmp_path)]


def test_an_object_in_pieces_is_synced_before_it_has_its_name_and_the_name_after(tmp_path: Path, synced: list[str]) -> None:
    store = LocalObjectStore(tmp_path)
    store.put("incoming/old", b"")
    for put in (lambda: store.put_chunks("incoming/a", iter([b"pix", b"els"])), lambda: store.copy("incoming/a", "incoming/b")):
        synced.clear()
        put()
        part, folder = synced
        assert (Path(part).suffix, Path(part).parent, folder) == (".part", tmp_path / "incoming", str(tmp_path / "incoming"))


def test_an_erased_object_does_not_come_back_after_a_power_failure(tmp_path: Path, synced: list[str]) -> None:
    store = LocalObjectStore(tmp_path)
    store.put("incoming/a", b"pixels")
    synced.clear()
    for key in ("incoming/a", "incoming/a", "nowhere/a"):
        store.erase(key)
    assert synced == [str(tmp_path / "incoming")]


def test_a_new_file_of_results_is_synced_with_its_name(tmp_path: Path, synced: list[str]) -> None:
    sink = JsonlSink(tmp_path / "results.jsonl")
    sink.write([{"task_id": "a"}])
    sink.write([{"task_id": "b"}])
    assert synced == [str(tmp_path / "results.jsonl"), str(tmp_path), str(tmp_path / "results.jsonl")]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, synced: list[str]) -> None:
    for content in (b"old", b"new"):
        write_durably(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert synced[-1] == str(tmp_path)


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        make_folders(tmp_path / "file" / "folder")
