"""Results as lines of a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from inference.runtime.durable_files import make_folders, sync_folder
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable, StoredResult


class JsonlSink:
    """`ResultSink` that appends each result to a file as a line of JSON. Several relays may share the file."""

    name = "jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(
        self,
        documents: Sequence[dict[str, Any]],
        contexts: Mapping[str, str] = NO_CONTEXTS,  # noqa: ARG002 documents have none
    ) -> list[Refusal]:
        lines = b"".join(
            orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE) for document in documents
        )
        try:
            make_folders(self._path.parent)
            with self._path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._append(file.fileno(), lines)
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error}") from error
        return []

    def erase(self, results: Sequence[StoredResult]) -> list[bool]:
        """Overwrite the lines of results in place, so that readers keep their places, and relays that have the file open too."""
        try:
            with self._path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _overwrite(file, results)
        except FileNotFoundError:
            pass  # no result was ever written
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error}") from error
        return [True] * len(results)

    def close(self) -> None:
        """Do nothing: no file is open between two writes."""

    def _append(self, descriptor: int, lines: bytes) -> None:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a relay crashed in the middle of a line
        try:
            view = memoryview(b"\n" + lines if is_torn else lines)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            if not size:  # the file is new: its folder must be synced too
                sync_folder(self._path.parent)
        except OSError:
            os.ftruncate(descriptor, size)  # half a line would make the next line invalid
            raise


_ERASED = b'{"erased":true'


def _overwrite(file: IO[bytes], results: Iterable[StoredResult]) -> None:
    """Replace each line of these results, a torn one too, by `{"erased":true }` of the same length."""
    beginnings = tuple(b'{"task_id":' + orjson.dumps(result.task_id) for result in results)
    at, is_changed = 0, False
    while line := file.readline():
        if line.startswith(beginnings):
            file.seek(at)
            file.write(_ERASED.ljust(len(line.rstrip(b"\n")) - 1) + b"}")
            file.seek(at + len(line))
            is_changed = True
        at += len(line)
    if is_changed:
        file.flush()
        os.fsync(file.fileno())
