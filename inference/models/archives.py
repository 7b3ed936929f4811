"""Unpacking of untrusted zip archives: declared sizes are checked, and members are read in pieces, as sizes may be false.

A deflated member may be a thousand times as large as its stored bytes; weights, the main part of any model, are rarely twice
as large. Only stored and deflated members are accepted: with other methods a few bytes may become gigabytes in one step.
"""

from __future__ import annotations

import copy
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inference.errors import ConfigurationError
from inference.runtime.durable_files import sync_folder

#: Far more files than a model has.
_MAX_MEMBERS = 10_000
_MAX_NAME_BYTES = 255
_MAX_DEPTH = 20
#: Maximum ratio of the content to the archive, for content larger than the floor.
_MAX_RATIO = 100
_RATIO_FLOOR_BYTES = 2**24
_CHUNK_BYTES = 2**20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class ModelFileLimits:
    """Limits for model files.

    Args:
        max_bytes: limit of one file, of the content of an archive, and of the arrays in an H5 file.
        min_free_bytes: free space that must remain on a disk after a write.
    """

    max_bytes: int = 2**33
    min_free_bytes: int = 0

    def check_disk(self, folder: Path, needed_bytes: int, name: str) -> None:
        """Raise ConfigurationError if this many bytes in `folder` would leave too little free space."""
        free = shutil.disk_usage(folder).free
        if free < needed_bytes + self.min_free_bytes:
            raise ConfigurationError(
                f"{name} needs {_mb(needed_bytes)} MiB, and its disk has {_mb(free)} MiB free, of which"
                f" {_mb(self.min_free_bytes)} MiB stay free (uploads.min_free_disk_mb)"
            )


DEFAULT_LIMITS = ModelFileLimits()


def is_expanded(size: int, stored: int) -> bool:
    """Whether content is so much larger than its stored bytes that it is probably meant to fill a disk or memory."""
    return size > _RATIO_FLOOR_BYTES and size > _MAX_RATIO * stored


def check_archive(archive: zipfile.ZipFile, limits: ModelFileLimits) -> Sequence[zipfile.ZipInfo]:
    """Check the declared members of an archive, and return all but the folders.

    Raises:
        ConfigurationError: there are too many members, they are too large, or one is not a plain file at a unique path below
            the root.
    """
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ConfigurationError(f"has {len(members)} members, more than {_MAX_MEMBERS}")
    for member in members:
        _check_member(member)
    files = [member for member in members if not member.is_dir()]
    _check_names(members)
    size, stored = (sum(getattr(file, name) for file in files) for name in ("file_size", "compress_size"))
    archive_size = os.fstat(archive.fp.fileno()).st_size if archive.fp is not None else 0
    if stored > archive_size:
        raise ConfigurationError("has members that overlap")
    if size > limits.max_bytes:
        raise ConfigurationError(_too_large(size, limits))
    if is_expanded(size, stored):
        raise ConfigurationError(_too_expanded(size, stored))
    return files


def unpack(archive: zipfile.ZipFile, folder: Path, limits: ModelFileLimits) -> None:
    """Write the content of an archive to a new folder, and sync it.

    Raises:
        ConfigurationError: `check_archive` refuses it, the disk has too little space, or a member differs from its declaration.
        OSError, zipfile.BadZipFile, zlib.error: the archive is damaged, or the folder is not writable.
    """
    files = check_archive(archive, limits)
    folder.mkdir(parents=True)
    limits.check_disk(folder, sum(file.file_size for file in files), "the archive")
    for file in files:
        path = folder / file.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for chunk in read_in_pieces(archive, file):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    for below, _, _ in os.walk(folder):
        sync_folder(Path(below))


def read_member(archive: zipfile.ZipFile, name: str, *, max_bytes: int) -> bytes:
    """Read one member of a checked archive into memory.

    Raises:
        ConfigurationError: the member is missing, has more than `max_bytes`, or differs from its declaration.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ConfigurationError(f"has no {name}") from None
    if member.file_size > max_bytes:
        raise ConfigurationError(f"has a {name} of {member.file_size} bytes, more than {max_bytes}")
    return b"".join(read_in_pieces(archive, member))


def read_in_pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a member, up to its declared size.

    Raises:
        ConfigurationError: the content is larger or smaller.
    """
    # zipfile stops at the declared size, and would not report further content
    unbounded = copy.copy(member)
    unbounded.file_size = member.file_size + 1
    size = 0
    with archive.open(unbounded) as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > member.file_size:
                break
            yield chunk
    if size != member.file_size:
        raise ConfigurationError(f"has a member with a size that differs from the declared one: {_shown(member)}")


def _check_member(member: zipfile.ZipInfo) -> None:
    """Raise ConfigurationError if a member is not a plain file or folder below the root."""
    name = member.filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    is_odd = "\\" in name or "\0" in member.orig_filename or not name.isprintable()
    if is_odd or path.is_absolute() or ".." in path.parts or not (path.parts or member.is_dir()):
        problem = "with a name that is not a path below the archive's root"
    elif len(path.parts) > _MAX_DEPTH or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in path.parts):
        problem = "with a name that is too long"
    elif kind not in {0, stat.S_IFREG, stat.S_IFDIR} or (kind == stat.S_IFDIR) > member.is_dir():
        problem = "that is a link or a special file"
    elif member.flag_bits & _ENCRYPTED:
        problem = "that is encrypted"
    elif member.compress_type not in _METHODS:
        problem = "that is neither stored nor deflated"
    elif member.is_dir() and member.file_size:
        problem = "that is a folder with content"
    elif is_expanded(member.file_size, member.compress_size):
        raise ConfigurationError(f"has a member ({_shown(member)}) that {_too_expanded(member.file_size, member.compress_size)}")
    else:
        return
    raise ConfigurationError(f"has a member {problem}: {_shown(member)}")


def _check_names(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise ConfigurationError if two members have the same name, or a name is a file and a folder."""
    names = {PurePosixPath(member.filename) for member in members}
    files = {PurePosixPath(member.filename) for member in members if not member.is_dir()}
    if len(names) < len(members):
        raise ConfigurationError("has two members of the same name")
    if not all(files.isdisjoint(name.parents) for name in names):
        raise ConfigurationError("has a member that is a file and a folder")


def _too_large(size: int, limits: ModelFileLimits) -> str:
    return f"has {_mb(size)} MiB when unpacked, more than {_mb(limits.max_bytes)} (model_files.max_unpacked_mb)"


def _too_expanded(size: int, stored: int) -> str:
    return f"has {_mb(size)} MiB when unpacked, more than {_MAX_RATIO} times its stored size ({stored} bytes)"


def _mb(size: int) -> int:
    return -(-size // 2**20)


def _shown(member: zipfile.ZipInfo) -> str:
    return repr(member.filename[:_MAX_NAME_BYTES])
