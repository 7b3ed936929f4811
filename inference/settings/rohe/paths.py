"""Find the files of the seed's models, whose folders may be written as they are on their author's machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def located(folder: str, files: Sequence[str], rohe: Path | None) -> list[str]:
    """Find the files of one model: `files` as they are named, in `folder` unless they are absolute or objects in a bucket.

    Absolute paths that are not on this machine are looked for below `rohe`, the checkout of ROHE, by their tails: of
    ``/home/author/ROHE/artifact/vgg`` first ``home/author/ROHE/artifact/vgg``, then ``author/ROHE/artifact/vgg``, and so on.
    The longest tail with which all of them are there is taken, so that no model is put together of two folders; else the
    longest with which their folders are; else the whole path, for the error that says what is missing.
    """
    named = [file if "://" in file else str(Path(folder) / file) for file in files]
    lost = _lost(named, rohe) if rohe is not None else []
    if rohe is None or not lost:
        return named
    moved = dict(zip(lost, _below(rohe, lost), strict=True))
    return [moved.get(file, file) for file in named]


def _lost(files: Sequence[str], rohe: Path) -> list[str]:
    """The absolute ones that are not here, nor is another file in their folder."""
    paths = {file: _path(file) for file in files if "://" not in file}
    folders = {path.parent for path in paths.values() if os.path.exists(path)}  # noqa: PTH110 False where it may not look
    return [
        file
        for file, path in paths.items()
        if path.is_absolute() and path.parent not in folders and not path.is_relative_to(rohe)
    ]


def _below(rohe: Path, files: Sequence[str]) -> list[str]:
    # without `..`, which could lead out of the checkout
    parts = [Path(os.path.normpath(_path(file))).parts[1:] for file in files]
    tails = [[rohe.joinpath(*names[left_out:]) for names in parts] for left_out in range(max(1, min(map(len, parts))))]
    whole = [tail for tail in tails if all(path.exists() for path in tail)]
    in_folders = [tail for tail in tails if all(path.parent != rohe and path.parent.is_dir() for path in tail)]
    found = next(iter(whole + in_folders + tails))
    return [f"{path}{file.removeprefix(str(_path(file)))}" for path, file in zip(found, files, strict=True)]


def _path(file: str) -> Path:
    """Cut off the digest behind a path."""
    return Path(file.partition("#sha256=")[0])
