"""Cache of objects in a folder that all processes of a host share.

    CACHE/DIGEST/NAME            content, found by its digest
    CACHE/DIGEST/unpacked/       content of a .zip
    CACHE/objects/ID.json        etag and digest of an object when it was last fetched
    CACHE/objects/ID.lock        held by the process that fetches or checks the object

One process at a time fetches an object, into a file that gets its final name when it is complete. The digest of a copy is
checked before it is used: an incomplete or changed copy is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits, check_archive, read_in_pieces, unpack
from inference.models.digests import file_sha256
from inference.models.locations import FileLocation
from inference.runtime.durable_files import make_folders, replace_durably, write_durably
from inference.runtime.file_lock import file_lock
from inference.storage.protocol import ObjectReader

logger = logging.getLogger(__name__)

#: Bytes of a download between two checks of the free disk space.
_DISK_CHECK_BYTES = 2**24


@dataclass(frozen=True)
class _Fetched:
    """State of an object when it was last fetched."""

    etag: str
    sha256: str


class ObjectCache:
    """Cache of objects in `folder`, which is created on demand."""

    def __init__(self, folder: Path, objects: ObjectReader, limits: ModelFileLimits = DEFAULT_LIMITS) -> None:
        self._folder = folder
        self._objects = objects
        self._limits = limits

    def fetch(self, location: FileLocation) -> Path:
        """Return a copy of the object at `location`; it is fetched unless an intact copy exists.

        If the location has no digest, the store is asked each time whether the object has changed; if the store does not
        answer, the last copy is used.

        Raises:
            ObjectNotFound: there is no such object or bucket.
            ConfigurationError: its digest differs from that of the location, it is too large, or the cache is not writable.
            ServiceUnavailable: the store does not answer, and there is no copy.
        """
        record = self._record_file(location)
        try:
            with _locked(record.with_suffix(".lock"), location.text):
                sha256 = location.sha256 or self._unchanged(location, record)
                if sha256 and _is_intact(copy := self._copy(location, sha256), sha256):
                    return copy
                return self._download(location, record)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def unpack(self, archive: Path, sha256: str) -> Path:
        """Return the folder with the content of `archive`, a zip file with this digest.

        Raises:
            ConfigurationError: it is not a zip file, it is refused (`archives`), or the cache is not writable.
        """
        folder = self._folder / sha256 / "unpacked"
        try:
            with _locked(folder.with_suffix(".lock"), str(archive)), zipfile.ZipFile(archive) as packed:
                if not _has_same_content(packed, check_archive(packed, self._limits), folder):
                    self._unpack(packed, folder)
        except ConfigurationError as error:
            raise ConfigurationError(f"{archive.name} {error.detail}") from error
        except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ConfigurationError(f"{archive.name} is not a zip archive, or is damaged: {error}") from error
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return folder

    def _unpack(self, packed: zipfile.ZipFile, folder: Path) -> None:
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            unpack(packed, partial, self._limits)
            shutil.rmtree(folder, ignore_errors=True)
            replace_durably(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _unchanged(self, location: FileLocation, record: Path) -> str | None:
        """Return the digest of the last copy; None if the object has changed since."""
        last = _read(record)
        try:
            etag = self._objects.etag(location.bucket or "", location.key)
        except ServiceUnavailable as error:
            if last is None:
                raise
            logger.warning("%s: %s; its last copy is used", location.text, error.detail)
            return last.sha256
        return last.sha256 if last and last.etag == etag else None

    def _download(self, location: FileLocation, record: Path) -> Path:
        logger.info("fetching %s", location.text)
        partial = record.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                bounded = cast("IO[bytes]", _Bounded(file, self._limits, location.key))
                etag = self._objects.download(location.bucket or "", location.key, bounded)
                file.flush()
                os.fsync(file.fileno())
            sha256 = file_sha256(partial)
            if location.sha256 not in (None, sha256):
                raise ConfigurationError(
                    f"{location.text} has the digest sha256:{sha256}, not sha256:{location.sha256}",
                    public=f"{location.key} has the digest sha256:{sha256}, not sha256:{location.sha256}",
                )
            copy = self._copy(location, sha256)
            make_folders(copy.parent)
            replace_durably(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
        write_durably(record, json.dumps(asdict(_Fetched(etag, sha256))).encode())
        return copy

    def _copy(self, location: FileLocation, sha256: str) -> Path:
        return self._folder / sha256 / PurePosixPath(location.key).name

    def _record_file(self, location: FileLocation) -> Path:
        name = hashlib.sha256(location.text.encode()).hexdigest()[:32]
        return self._folder / "objects" / f"{name}.json"


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    public = "the cache of model files cannot be written (model_files.cache_dir)"
    return ConfigurationError(f"model_files.cache_dir: {folder}: {error.strerror or error}", public=public)


def _locked(file: Path, name: str) -> AbstractContextManager[None]:
    return file_lock(file, lambda: logger.info("waiting for another process that fetches or checks %s", name))


def _is_intact(copy: Path, sha256: str) -> bool:
    if not copy.is_file():
        return False
    if file_sha256(copy) == sha256:
        return True
    logger.warning("%s is incomplete or was changed; fetching it again", copy)
    return False


def _has_same_content(packed: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return len(files) == len(members) and all(_is_copy_of(packed, info, folder / info.filename) for info in members)


def _is_copy_of(packed: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    digest = hashlib.sha256()
    for piece in read_in_pieces(packed, info):
        digest.update(piece)
    return digest.hexdigest() == file_sha256(path)


def _read(record: Path) -> _Fetched | None:
    try:
        return _Fetched(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # missing, or not written by this module
        return None


class _Bounded:
    """File that refuses data over the limits; the free disk space is checked from time to time."""

    def __init__(self, file: IO[bytes], limits: ModelFileLimits, name: str) -> None:
        self._file = file
        self._limits = limits
        self._name = name
        self._size = 0
        self._checked_at_size = 0

    def write(self, data: Any) -> int:
        """Write a piece; raises ConfigurationError if the file is too large, or the disk too full."""
        size = memoryview(data).nbytes
        if self._size + size > self._limits.max_bytes:
            raise ConfigurationError(f"{self._name} has more than {self._limits.max_bytes} bytes (model_files.max_unpacked_mb)")
        if self._size == 0 or self._size - self._checked_at_size >= _DISK_CHECK_BYTES:
            self._limits.check_disk(Path(self._file.name).parent, size, self._name)
            self._checked_at_size = self._size
        self._size += size
        return self._file.write(data)
