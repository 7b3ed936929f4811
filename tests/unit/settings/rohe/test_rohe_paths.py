"""Model folders of another machine, found by their tails below a checkout of ROHE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from inference.settings.rohe.paths import located

FILES = ("model.json", "model.h5")


def checkout(folder: Path, *models: str) -> Path:
    """A checkout of ROHE with the files of these models."""
    for model in models:
        (folder / model).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / model / name).touch()
    return folder


def files_in(folder: Path) -> list[str]:
    return [str(folder / name) for name in FILES]


def test_the_longest_tail_is_taken(tmp_path: Path) -> None:
    rohe = checkout(tmp_path, "repair", "0/repair", "VGG16/0/repair", "x/VGG16/0/repair")
    assert located("/home/author/ROHE/artifact/VGG16/0/repair", FILES, rohe) == files_in(rohe / "VGG16/0/repair")


def test_a_model_is_not_put_together_of_two_folders(tmp_path: Path) -> None:
    rohe = checkout(tmp_path, "0/repair", "VGG16/0/repair")
    (rohe / "VGG16/0/repair/model.h5").unlink()
    assert located("/home/author/ROHE/VGG16/0/repair", FILES, rohe) == files_in(rohe / "0/repair")


def test_files_that_are_missing_are_those_of_the_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "VGG16/0").mkdir(parents=True)
    assert located("/home/author/ROHE/VGG16/0", FILES, tmp_path) == files_in(tmp_path / "VGG16/0")


def test_where_nothing_is_there_the_whole_path_is_said_to_be_missing(tmp_path: Path) -> None:
    assert located("/home/author/ROHE/VGG16/0", FILES, tmp_path) == files_in(tmp_path / "home/author/ROHE/VGG16/0")


def test_a_file_that_is_missing_in_a_folder_that_is_here_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    here = checkout(tmp_path / "here", "vgg") / "vgg"
    (here / "model.h5").unlink()
    assert located(str(here), FILES, checkout(tmp_path / "rohe", "vgg")) == files_in(here)


@pytest.mark.parametrize("folder", ["artifact/vgg", "../vgg", ""])
def test_relative_paths_stay(tmp_path: Path, folder: str) -> None:
    assert located(folder, FILES, checkout(tmp_path, "artifact/vgg", "vgg")) == files_in(Path(folder))


@pytest.mark.parametrize("folder", ["/home/author/../../outside", "/home/../author/x/../../../outside", "/../outside"])
def test_no_tail_leads_out_of_the_checkout(tmp_path: Path, folder: str) -> None:
    checkout(tmp_path, "outside")
    (tmp_path / "rohe" / "home" / "author").mkdir(parents=True)
    assert located(folder, FILES, tmp_path / "rohe") == files_in(tmp_path / "rohe/outside")


@pytest.mark.parametrize("files", [FILES, ("/", "/.."), ("/nowhere/..", "/x"), ("s3://models/model.json", "model.h5")])
@pytest.mark.parametrize("folder", ["/", "/..", "/nowhere/..", "/nowhere"])
def test_the_shortest_paths_are_paths_too(tmp_path: Path, folder: str, files: tuple[str, str]) -> None:
    assert len(located(folder, files, tmp_path)) == 2


def test_objects_in_a_bucket_are_left_alone(tmp_path: Path) -> None:
    rohe = checkout(tmp_path, "vgg")
    files = ("s3://models/model.json", "model.h5")
    assert located("/home/author/ROHE/vgg", files, rohe) == ["s3://models/model.json", str(rohe / "vgg/model.h5")]


def test_a_digest_behind_a_path_is_kept(tmp_path: Path) -> None:
    rohe = checkout(tmp_path, "vgg")
    digest = "#sha256=" + "0" * 64
    files = (FILES[0], FILES[1] + digest)
    architecture, weights = files_in(rohe / "vgg")
    assert located("/home/author/ROHE/vgg", files, rohe) == [architecture, weights + digest]
    assert located(str(rohe / "vgg"), files, tmp_path / "elsewhere") == [architecture, weights + digest]


def test_a_home_folder_that_may_not_be_read_is_as_one_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/home/author"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    real = os.stat
    monkeypatch.setattr(os, "stat", refuse)
    rohe = checkout(tmp_path, "vgg")
    assert located("/home/author/ROHE/vgg", FILES, rohe) == files_in(rohe / "vgg")
