"""Files that survive a power failure: their content is synced, and so is the folder that names them."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader finds either the old or the new content. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(part, path)


def replace_durably(source: Path, target: Path) -> None:
    """Rename a file or a folder, whose content is synced, in the same file system. Raises OSError."""
    source.replace(target)
    sync_folder(target.parent)


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents, and sync the names of all created folders. Raises OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(path: Path | str) -> None:
    """Sync the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
