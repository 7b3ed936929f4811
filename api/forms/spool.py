"""Storage for the images of a form, or a body in JSON, while it arrives: the first megabytes in memory, the rest in a file.

A client may send a large body slowly, or one that is refused: until it is complete it takes space on the disk (`TMPDIR`), not in
memory, unless that folder is itself in memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from io import BytesIO, RawIOBase
from typing import IO

from inference.errors import ServiceUnavailable
from inference.runtime.gevent import run_blocking
from inference.runtime.open_files import out_of_files

logger = logging.getLogger(__name__)

#: Bytes of one form that stay in memory: enough for a usual photo, or a batch of small images.
MAX_IN_MEMORY_BYTES = 4 * 2**20
#: Bytes that are written or read at a time: to read or write fewer takes no longer than to hand them to a thread.
_BLOCK_BYTES = 2**18
_RETRY_AFTER_S = 5.0


def content_of(stream: IO[bytes]) -> bytes:
    """The bytes of an image that a `Spool` keeps, without a copy if they are in memory."""
    return stream.getvalue() if isinstance(stream, BytesIO) else stream.read()


def read_spooled(stream: IO[bytes]) -> bytes:
    """Read a body that is used as a whole. Raises ServiceUnavailable: the disk has no room for it while it arrives."""
    spool = Spool()
    try:
        spool.begin()
        while piece := stream.read(_BLOCK_BYTES):
            spool.write(piece)
        return content_of(spool.end())
    finally:
        spool.close()


class Spool:
    """Keeps the contents of a form's images, which arrive one after the other, in pieces.

    Contents that are complete when the limit is reached stay in memory; the current content and all later ones go to the file.
    """

    def __init__(self) -> None:
        self._in_memory_bytes = 0
        #: pieces of the current content; once there is a file, the pieces that are not written to it yet
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        #: size of the file when all pieces are written
        self._file_size = 0
        self._unwritten_bytes = 0
        #: position of the current content in the file
        self._offset = 0

    def begin(self) -> None:
        """Begin the next content."""
        if self._file is None:
            self._pieces = []
        self._offset = self._file_size

    def write(self, piece: bytes) -> None:
        """Add to the current content. Raises ServiceUnavailable: the disk has no room for it."""
        self._pieces.append(piece)
        if self._file is None:
            self._in_memory_bytes += len(piece)
            if self._in_memory_bytes > MAX_IN_MEMORY_BYTES:
                self._file_size = self._unwritten_bytes = sum(map(len, self._pieces))
                self.flush()
        else:
            self._file_size += len(piece)
            self._unwritten_bytes += len(piece)
            if self._unwritten_bytes >= _BLOCK_BYTES:
                self.flush()

    def end(self) -> IO[bytes]:
        """End the current content; returns a stream that is read as a whole."""
        if self._file is None:
            return BytesIO(b"".join(self._pieces))
        return _FilePart(self, self._offset, self._file_size - self._offset)  # type: ignore[return-value]

    def read(self, offset: int, size: int) -> bytes:
        """Read a part of the file. Raises ServiceUnavailable: the disk has no room for it."""
        if self._file is None:
            raise ValueError("the file is closed")
        if self._pieces:
            self.flush()
        read = partial(os.pread, self._file.fileno(), size, offset)
        return read() if size <= _BLOCK_BYTES else run_blocking(read)

    def flush(self) -> None:
        """Write all pieces to the file. Raises ServiceUnavailable: the disk has no room for it."""
        try:
            run_blocking(self._write_pieces)
        except OSError as error:
            if out_of_files(error):
                raise
            logger.warning("a request body cannot be kept in %s (TMPDIR): %s", tempfile.gettempdir(), error.strerror)
            raise ServiceUnavailable("the service has no room for large bodies", retry_after_s=_RETRY_AFTER_S) from error

    def close(self) -> None:
        """Close and thereby delete the file."""
        self._pieces = []
        if self._file is not None:
            self._file.close()

    def _write_pieces(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 the request closes it, see _FilePart
        for piece in self._pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._pieces, self._unwritten_bytes = [], 0


class _FilePart(RawIOBase):
    """One content in the file. At its end the request closes its parts, which closes the file."""

    def __init__(self, spool: Spool, offset: int, size: int) -> None:
        super().__init__()
        self._spool = spool
        self._offset = offset
        self._size = size

    def readall(self) -> bytes:
        return self._spool.read(self._offset, self._size)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            raise NotImplementedError("a content is read as a whole")
        return self.readall()

    def close(self) -> None:
        self._spool.close()
        super().close()
