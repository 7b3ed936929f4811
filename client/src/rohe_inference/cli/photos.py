"""The images that a command sends: files, folders, lists of files, and bytes from stdin."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

#: files of a folder that are images, by the end of their names
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".npy"})
STDIN = "-"


@dataclass(frozen=True)
class Photo:
    """An image in a file."""

    #: as in the command or in the list
    name: str
    #: absolute, without links
    path: str
    #: bytes, and nanoseconds since the epoch; -1 if there was no such file
    size: int
    modified_ns: int

    @property
    def identity(self) -> str:
        """32 hexadecimal digits of path, size and time of the last change: another content is another photo."""
        text = f"{self.path}\0{self.size}\0{self.modified_ns}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]

    def check_readable(self) -> None:
        """Raises OSError if the file cannot be opened."""
        with open(self.path, "rb"):  # noqa: PTH123 - a Path of each of thousands of files is slow
            pass

    def read(self) -> bytes:
        """Return the bytes of the file. Raises OSError."""
        return Path(self.path).read_bytes()


def find_photos(names: Sequence[str], *, is_recursive: bool) -> list[Photo]:
    """Return the files that are named, and the images of folders, each once, sorted within a folder.

    Raises:
        click.UsageError: a name does not exist, or nothing is left.
    """
    found: dict[str, Photo] = {}
    for name in names:
        if Path(name).is_dir():
            files: Iterable[str] = _images_below(name, is_recursive=is_recursive)
        elif Path(name).exists():
            files = [name]
        else:
            raise click.UsageError(f"there is no file or folder {name!r}")
        found |= {photo.path: photo for photo in map(_photo, files)}
    if not found:
        where = ", ".join(map(repr, names))
        hint = "" if is_recursive else "; --recursive looks into subfolders too"
        raise click.UsageError(f"no image in {where}: files that end with {', '.join(sorted(SUFFIXES))} are taken{hint}")
    return list(found.values())


def listed_photos(lines: Iterable[str]) -> list[Photo]:
    """Return the files of a list with a path in each line, each once; a missing file fails alone when it is read.

    Raises:
        click.UsageError: the list is empty.
    """
    names = [line.rstrip("\r\n") for line in lines]
    found = {photo.path: photo for photo in map(_photo, filter(None, names))}
    if not found:
        raise click.UsageError("the list of files is empty; it has one path in each line")
    return list(found.values())


def _photo(name: str) -> Photo:
    path = os.path.realpath(name)
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path of each of thousands of files is slow
    except OSError:
        return Photo(name, path, -1, -1)
    return Photo(name, path, status.st_size, status.st_mtime_ns)


def _images_below(folder: str, *, is_recursive: bool) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if is_recursive and not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield os.path.join(path, name)  # noqa: PTH118 - a Path of each of thousands of files is slow
