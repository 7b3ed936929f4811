"""Paths of model files in ROHE's configurations, which may be valid only on their author's machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def located(folder: str, files: Sequence[str], rohe: Path | None) -> list[str]:
    """Find the files of one model: `files` in `folder`, unless they are absolute or objects in a bucket.

    Absolute paths that do not exist on this machine are searched below `rohe`, the checkout of ROHE, by their last parts: for
    ``/home/author/ROHE/artifact/vgg`` first ``home/author/ROHE/artifact/vgg``, then ``author/ROHE/artifact/vgg``, and so on.
    The longest part with which all files exist is used, so that the files of one model come from one folder; else the longest
    with which their folders exist; else the whole path, so that the error names the missing file.
    """
    paths = [file if "://" in file else str(Path(folder) / file) for file in files]
    missing = _missing(paths, rohe) if rohe is not None else []
    if rohe is None or not missing:
        return paths
    moved = dict(zip(missing, _below(rohe, missing), strict=True))
    return [moved.get(path, path) for path in paths]


def _missing(files: Sequence[str], rohe: Path) -> list[str]:
    """Return the absolute paths outside `rohe` in folders of which none of the files exists on this machine."""
    paths = {file: _path(file) for file in files if "://" not in file}
    folders = {path.parent for path in paths.values() if os.path.exists(path)}  # noqa: PTH110 False without permission
    return [
        file
        for file, path in paths.items()
        if path.is_absolute() and path.parent not in folders and not path.is_relative_to(rohe)
    ]


def _below(rohe: Path, files: Sequence[str]) -> list[str]:
    """Return the paths below `rohe` for absolute paths from another machine."""
    # without `..`, which could lead out of the checkout
    parts = [Path(os.path.normpath(_path(file))).parts[1:] for file in files]
    tails = [[rohe.joinpath(*names[left_out:]) for names in parts] for left_out in range(max(1, min(map(len, parts))))]
    whole = [tail for tail in tails if all(path.exists() for path in tail)]
    in_folders = [tail for tail in tails if all(path.parent != rohe and path.parent.is_dir() for path in tail)]
    found = next(iter(whole + in_folders + tails))
    return [f"{path}{file.removeprefix(str(_path(file)))}" for path, file in zip(found, files, strict=True)]


def _path(file: str) -> Path:
    """Return a path without the digest after it."""
    return Path(file.partition("#sha256=")[0])
