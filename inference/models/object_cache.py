"""Copies of objects in a folder that all processes of a host share.

    CACHE/DIGEST/NAME            the content, found again by its digest
    CACHE/DIGEST/unpacked/       of a .zip: what is in it
    CACHE/objects/ID.json        what an object was when it was last fetched: etag and digest
    CACHE/objects/ID.lock        held by the process that looks after the object

An object is fetched by one process at a time, into a file that gets its name when it is whole. A copy is read through before
it is used: one that is torn, or that someone changed, is fetched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.models.digests import file_sha256
from inference.models.locations import FileLocation
from inference.models.unpacking import DEFAULT_LIMITS, ModelFileLimits, check_archive, read_in_pieces, unpack
from inference.runtime.durable_files import make_folders, replace_durably, write_durably
from inference.storage.protocol import ObjectReader

logger = logging.getLogger(__name__)

#: Pauses of a process that waits for another's download: a blocking lock would stop all greenlets of an API process.
_LOCK_INTERVAL_S = 0.1
#: Bytes of a download between two looks at the free disk.
_LOOK_BYTES = 2**24


@dataclass(frozen=True)
class _Fetched:
    """What an object was when it was last fetched."""

    etag: str
    sha256: str


class ObjectCache:
    """`folder` is made when it is needed."""

    def __init__(self, folder: Path, objects: ObjectReader, limits: ModelFileLimits = DEFAULT_LIMITS) -> None:
        self._folder = folder
        self._objects = objects
        self._limits = limits

    def fetch(self, location: FileLocation) -> Path:
        """A copy of the object at `location`, fetched now unless an intact one is here.

        A location without a digest is asked for each time whether it has changed; if the store does not answer, the last copy
        is used.

        Raises:
            ObjectNotFound: there is no such object or bucket.
            ConfigurationError: its digest is not that of the location, it is too large, or the cache cannot be written.
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
        """The folder with what is in `archive`, a zip file with this digest.

        Raises:
            ConfigurationError: it is no zip file, one that is refused (`unpacking`), or the cache cannot be written.
        """
        folder = self._folder / sha256 / "unpacked"
        try:
            with _locked(folder.with_suffix(".lock"), str(archive)), zipfile.ZipFile(archive) as packed:
                if not _holds_the_same(packed, check_archive(packed, self._limits), folder):
                    self._unpack(packed, folder)
        except ConfigurationError as error:
            raise ConfigurationError(f"{archive.name} {error.detail}") from error
        except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ConfigurationError(f"{archive.name} is no zip archive, or a damaged one: {error}") from error
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return folder

    def _unpack(self, packed: zipfile.ZipFile, folder: Path) -> None:
        half = folder.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        try:
            unpack(packed, half, self._limits)
            shutil.rmtree(folder, ignore_errors=True)
            replace_durably(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _unchanged(self, location: FileLocation, record: Path) -> str | None:
        """The digest of the last copy, unless the object has another content now."""
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
        half = record.with_suffix(".part")
        try:
            with half.open("wb") as file:
                bounded = cast("IO[bytes]", _Bounded(file, self._limits, location.key))
                etag = self._objects.download(location.bucket or "", location.key, bounded)
                file.flush()
                os.fsync(file.fileno())
            sha256 = file_sha256(half)
            if location.sha256 not in (None, sha256):
                raise ConfigurationError(
                    f"{location.text} has the digest sha256:{sha256}, not sha256:{location.sha256}",
                    public=f"{location.key} has the digest sha256:{sha256}, not sha256:{location.sha256}",
                )
            copy = self._copy(location, sha256)
            make_folders(copy.parent)
            replace_durably(half, copy)
        finally:
            half.unlink(missing_ok=True)
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


@contextmanager
def _locked(file: Path, what: str) -> Iterator[None]:
    """Until this process has the lock on `file`; it goes with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        waits = False
        while not _try_lock(lock):
            if not waits:
                logger.info("waiting for another process that looks after %s", what)
                waits = True
            time.sleep(_LOCK_INTERVAL_S)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_intact(copy: Path, sha256: str) -> bool:
    if not copy.is_file():
        return False
    if file_sha256(copy) == sha256:
        return True
    logger.warning("%s is torn, or was changed; it is fetched again", copy)
    return False


def _holds_the_same(packed: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> bool:
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
    except (OSError, ValueError, TypeError):  # none yet, or not ours
        return None


class _Bounded:
    """A file that refuses what is over the limits; the disk is looked at now and then."""

    def __init__(self, file: IO[bytes], limits: ModelFileLimits, what: str) -> None:
        self._file = file
        self._limits = limits
        self._what = what
        self._size = 0
        self._looked_at = 0

    def write(self, data: Any) -> int:
        """Raises ConfigurationError: the file gets too large, or the disk too full."""
        size = memoryview(data).nbytes
        if self._size + size > self._limits.max_bytes:
            raise ConfigurationError(f"{self._what} has more than {self._limits.max_bytes} bytes (model_files.max_unpacked_mb)")
        if self._size == 0 or self._size - self._looked_at >= _LOOK_BYTES:
            self._limits.check_disk(Path(self._file.name).parent, size, self._what)
            self._looked_at = self._size
        self._size += size
        return self._file.write(data)
