"""Images that a command sends."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from rohe_inference.cli.photos import find_photos, listed_photos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/b.JPG",
        "photos/a.png",
        "photos/notes.txt",
        "photos/.hidden.png",
        "photos/sub/c.webp",
        "photos/.git/d.png",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path


def test_folder_means_its_images_sorted(folder: Path) -> None:
    assert [photo.name for photo in find_photos(["photos"], is_recursive=False)] == ["photos/a.png", "photos/b.JPG"]


def test_recursive_means_subfolders_too(folder: Path) -> None:
    names = [photo.name for photo in find_photos(["photos"], is_recursive=True)]

    assert names == ["photos/a.png", "photos/b.JPG", "photos/sub/c.webp"]


def test_file_that_is_named_is_taken_whatever_its_name_and_once(folder: Path) -> None:
    names = [photo.name for photo in find_photos(["photos/notes.txt", "photos", "photos/a.png"], is_recursive=False)]

    assert names == ["photos/notes.txt", "photos/a.png", "photos/b.JPG"]


def test_missing_file_is_an_error_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(click.UsageError, match=r"no file or folder 'photos/z\.png'"):
        find_photos(["photos/a.png", "photos/z.png"], is_recursive=False)


def test_folder_without_images_says_what_is_taken(folder: Path) -> None:
    (folder / "empty").mkdir()

    with pytest.raises(click.UsageError, match=r"no image in 'empty'.*\.jpeg.*--recursive"):
        find_photos(["empty"], is_recursive=False)


def test_list_of_files(folder: Path) -> None:
    found = listed_photos(["photos/a.png\n", "\n", "photos/b.JPG\r\n", "photos/a.png\n", "missing.png"])

    assert [photo.name for photo in found] == ["photos/a.png", "photos/b.JPG", "missing.png"]
    assert found[0].read() == b"photos/a.png"
    with pytest.raises(FileNotFoundError):
        found[2].read()


def test_empty_list_is_an_error() -> None:
    with pytest.raises(click.UsageError, match="empty"):
        listed_photos(["\n"])


def test_identity_is_that_of_path_size_and_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photo, other) = find_photos(["photos"], is_recursive=False)
    monkeypatch.chdir(folder / "photos")
    (same, _) = find_photos(["."], is_recursive=False)
    os.utime(folder / "photos" / "a.png", (1, 1))
    (touched, _) = find_photos(["."], is_recursive=False)

    assert photo.identity == same.identity
    assert len({photo.identity, other.identity, touched.identity}) == 3
