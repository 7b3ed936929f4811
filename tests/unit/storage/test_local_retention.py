"""Retention of the local store removes the folders of old days, and nothing that it does not know."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inference.storage.local import LocalObjectStore
from inference.storage.protocol import upload_key

OLD = datetime.now(UTC) - timedelta(days=10)


@pytest.fixture
def store(tmp_path: Path) -> LocalObjectStore:
    store = LocalObjectStore(tmp_path)
    store.put(upload_key("old", OLD), b"old")
    store.put(upload_key("new", datetime.now(UTC)), b"new")
    return store


@pytest.mark.parametrize("stray", ["2026/01/31.bak", "2026/02/31", "2026/1/5", "lost+found/x/y", "2026/99/99"])
def test_a_stray_folder_is_passed_over_with_a_warning(
    store: LocalObjectStore, tmp_path: Path, stray: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "uploads" / stray / "file"
    kept.parent.mkdir(parents=True)
    kept.touch()
    store.apply_retention(120)
    assert kept.exists()
    assert stray in caplog.text
    assert not (tmp_path / upload_key("old", OLD)).exists()
    assert (tmp_path / upload_key("new", datetime.now(UTC))).exists()


def test_hours_count(store: LocalObjectStore, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first_kept = now - timedelta(hours=1.5)
    older, newer = (tmp_path / upload_key(name, first_kept) for name in ("older", "newer"))
    for path, age in ((older, timedelta(hours=1.6)), (newer, timedelta(hours=1.4))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, times=((now - age).timestamp(),) * 2)
    store.apply_retention(1.5)
    assert (older.exists(), newer.exists()) == (False, True)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_a_link_in_the_place_of_a_day_stays(store: LocalObjectStore, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    day = tmp_path / "uploads" / "2020" / "01" / "02"
    day.parent.mkdir(parents=True)
    day.touch() if kind == "file" else day.symlink_to(outside)
    store.apply_retention(120)
    assert os.path.lexists(day)
    assert (outside / "precious").exists()
    assert not (tmp_path / upload_key("old", OLD)).exists()


@pytest.mark.parametrize("stray", ["notes.txt", "2020", "2020/01", "2020/01/02.txt", ".nfs000", "2020/01/\udcff"])
def test_a_file_in_the_place_of_a_folder_stays_and_stops_no_sweep(store: LocalObjectStore, tmp_path: Path, stray: str) -> None:
    kept = tmp_path / "uploads" / stray
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()
    store.apply_retention(120)
    assert kept.exists()
    assert not (tmp_path / upload_key("old", OLD)).exists()
    assert (tmp_path / upload_key("new", datetime.now(UTC))).exists()


def test_what_is_in_a_day_besides_uploads_goes_with_it_or_stays_until_then(store: LocalObjectStore, tmp_path: Path) -> None:
    at = datetime.now(UTC) - timedelta(hours=1.5)
    today, old = (tmp_path / upload_key("task", day) for day in (at, OLD))
    for path in (today, old):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "folder").mkdir()
        (path.parent / "folder" / "file").touch()
        os.mkfifo(path.parent / "pipe")
    store.apply_retention(1.5)
    assert not old.parent.exists()
    assert (today.parent / "folder" / "file").exists()
