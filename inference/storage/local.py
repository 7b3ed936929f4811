"""Object store on a local folder: objects are files."""

from __future__ import annotations

import errno
import heapq
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

from inference.errors import ObjectNotFound, ServiceUnavailable, StorageFull
from inference.runtime.descriptors import write_all
from inference.runtime.durable_files import make_folders, replace_durably, sync_folder
from inference.runtime.gevent import run_blocking
from inference.storage.protocol import is_path, too_large

logger = logging.getLogger(__name__)

#: errors of opening a symbolic link without following it, and of opening a socket
_NO_FILE = {errno.ELOOP, errno.ENXIO}
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: day in a key, as `upload_key` writes it
_DAY = re.compile(r"\d{4}/\d{2}/\d{2}", re.ASCII)
#: limit for the name of a file or folder on the usual file systems
_MAX_NAME_BYTES = 255
_COPIED_BYTES = 2**18


class LocalObjectStore:
    """`ObjectStore` on a local folder.

    A put writes the file in place. If it must be durable, the put syncs the file and its folder. No process reads a key before
    its put has ended: a task that is accepted earlier has its image in the task store too.
    """

    is_local = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: cached, since it is needed for each object, and there are few folders
        self._folder_below = lru_cache(maxsize=1000)(self._resolved_folder)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_durable: bool = True,
    ) -> None:
        del content_type, metadata  # a file has no place for them; the task record has the request id
        path = self._path(key)
        with _unavailable_when_failing():
            try:
                if not is_durable:
                    _write(path, data)
                else:
                    run_blocking(partial(_write, path, data, is_synced=True))
            except OSError:
                Path(path).unlink(missing_ok=True)
                raise

    def put_chunks(self, key: str, chunks: Iterable[bytes]) -> None:
        path = self._path(key)
        part = f"{path}.{secrets.token_hex(8)}.part"
        with _unavailable_when_failing():
            try:
                file = _create_with_folders(part)
                try:
                    for chunk in chunks:
                        run_blocking(partial(write_all, file, chunk))
                    run_blocking(partial(os.fsync, file))
                finally:
                    os.close(file)
                run_blocking(partial(replace_durably, Path(part), Path(path)))
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise

    def put_url(self, key: str, *, lifetime_s: float) -> None:
        """Return None: clients do not reach the folder."""

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        with _unavailable_when_failing(), self._opened(key) as (file, size):
            if max_bytes is not None and size > max_bytes:
                raise too_large(key, size, max_bytes)
            return file.read()

    def size(self, key: str) -> int:
        with _unavailable_when_failing(), self._opened(key) as (_, size):
            return size

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[IO[bytes], int]]:
        """Open an object to read, and return its size too. Raises ObjectNotFound."""
        try:
            file = open(self._path(key), "rb", opener=_open_to_read)  # noqa: SIM115 closed below
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectNotFound(f"there is no object {key}") from error
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ObjectNotFound(f"{key} is not a regular file")
            yield file, status.st_size

    def delete(self, key: str) -> None:
        with _unavailable_when_failing():
            Path(self._path(key)).unlink(missing_ok=True)

    def erase(self, key: str) -> None:
        """Delete an object; a power failure does not bring it back."""
        path = self._path(key)
        with _unavailable_when_failing():
            run_blocking(partial(_erase, path))

    def copy(self, source: str, target: str) -> None:
        with _unavailable_when_failing(), self._opened(source) as (file, _):
            self.put_chunks(target, iter(partial(file.read, _COPIED_BYTES), b""))

    def list_keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        folder = self._path(f"{prefix}*").rpartition("/")[0]
        least = after.removeprefix(prefix) if after.startswith(prefix) else ""
        with _unavailable_when_failing():
            try:
                with os.scandir(folder) as entries:
                    names = (entry.name for entry in entries if entry.name > least and entry.is_file(follow_symlinks=False))
                    return [prefix + name for name in heapq.nsmallest(limit, names)]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def ping(self) -> None:
        with _unavailable_when_failing():
            nearest = self._folder.absolute()
            while not os.path.lexists(nearest):  # the first put makes missing folders
                nearest = nearest.parent
            if not nearest.is_dir():
                raise NotADirectoryError(f"{nearest} is not a folder")
            if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"no permission to write to {nearest}")

    def apply_retention(self, hours: float | None) -> bool:
        if hours is None:
            return False
        first_kept = datetime.now(UTC) - timedelta(hours=hours)
        failures: list[OSError] = []
        with _unavailable_when_failing():
            for folder in sorted(self._folder.glob("uploads/*/*/*")):
                day = _day_of(folder)
                if day is None:
                    logger.warning("retention skips %r: not a folder of a day's uploads (uploads/YYYY/MM/DD)", str(folder))
                elif day <= first_kept.date():
                    try:
                        shutil.rmtree(folder) if day < first_kept.date() else _remove_older(folder, first_kept.timestamp())
                    except OSError as error:  # remove the other days first
                        failures.append(error)
            if failures:
                raise failures[0]
        return False

    def _path(self, key: str) -> str:
        """Return the path of an object. Raises ObjectNotFound: the key is not a path below the folder."""
        is_key = is_path(key) and max(map(len, os.fsencode(key).split(b"/"))) <= _MAX_NAME_BYTES
        parent, _, name = key.rpartition("/")
        folder = self._folder_below(parent) if is_key else None
        if folder is None:
            raise ObjectNotFound(f"{key} is not a key of this store")
        return f"{folder}/{name}"  # a str: with a Path a small put takes twice as long

    def _resolved_folder(self, parent: str) -> str | None:
        """Return the folder of keys with this parent; None if a symbolic link leads out of the store."""
        path = self._folder / parent
        return str(path) if path.resolve().is_relative_to(self._folder.resolve()) else None


def _day_of(folder: Path) -> date | None:
    """Return the day of a folder `uploads/YYYY/MM/DD`; None if it is not such a folder."""
    if _DAY.fullmatch("/".join(folder.parts[-3:])) is None or folder.is_symlink() or not folder.is_dir():
        return None
    try:
        return date(*map(int, folder.parts[-3:]))
    except ValueError:  # the 31st of February
        return None


def _remove_older(folder: Path, limit_s: float) -> None:
    """Remove the files of a folder that were written before a time, seconds since the epoch."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < limit_s:
                Path(entry.path).unlink(missing_ok=True)


def _write(path: str, data: bytes, *, is_synced: bool = False) -> None:
    file = _create_with_folders(path)
    try:
        write_all(file, data)
        if is_synced:
            os.fsync(file)
    finally:
        os.close(file)
    if is_synced:
        sync_folder(os.path.dirname(path))  # noqa: PTH120 a str, as the path


def _erase(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108 a str, as the path
    except (FileNotFoundError, NotADirectoryError):
        return
    sync_folder(os.path.dirname(path))  # noqa: PTH120 as above


def _create_with_folders(path: str) -> int:
    try:
        return _create(path)
    except FileNotFoundError:  # the day's first upload
        make_folders(Path(path).parent)
        return _create(path)


def _create(path: str) -> int:
    """Create a file; return its descriptor, since a file object takes longer to make than a small image to write."""
    return _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _open_to_read(path: str, flags: int) -> int:
    """Open a file to read, without waiting for the other end of a named pipe."""
    return _open(path, flags | os.O_NONBLOCK)


def _open(path: str, flags: int) -> int:
    """Open a file. Raises ObjectNotFound: it is a symbolic link, which may lead out of the store, or a socket."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise ObjectNotFound(f"{Path(path).name} is a symbolic link or a socket, not a file") from error
        raise


@contextmanager
def _unavailable_when_failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("the disk of the uploads is full", retry_after_s=30) from error
        public = "the local object store failed"
        raise ServiceUnavailable(f"{public}: {error}", public=public, retry_after_s=5) from error
