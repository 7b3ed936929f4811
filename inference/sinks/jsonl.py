"""Results as lines of a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from inference.runtime.durable_files import make_folders, sync_folder
from inference.sinks.protocol import Refusal, SinkUnavailable


class JsonlSink:
    """`ResultSink` that appends each result to a file as a line of JSON. Several relays may share the file."""

    name = "jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, documents: Sequence[dict[str, Any]]) -> list[Refusal]:
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
