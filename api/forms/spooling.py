"""Images of a form while it comes: the first megabytes in memory, the rest in an unlinked temporary file.

A client may send a large form slowly, or for nothing: until all of it has come it takes room on the disk (`TMPDIR`), no memory,
unless that folder is in memory itself.
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

#: Bytes of one form that stay in memory: a usual photo, or a batch of small images.
MAX_IN_MEMORY_BYTES = 4 * 2**20
#: Bytes that are written and read at a time: fewer take no longer than to hand them to a thread.
_BLOCK_BYTES = 2**18
_RETRY_AFTER_S = 5.0


def content_of(stream: IO[bytes]) -> bytes:
    """The bytes of an image that a `Spool` kept, without a copy where they are in memory."""
    return stream.getvalue() if isinstance(stream, BytesIO) else stream.read()


class Spool:
    """Contents of a form's images, which come one after the other in pieces.

    Contents that are whole when the limit is reached stay in memory; the one under way and all later ones go to the file.
    """

    def __init__(self) -> None:
        self._in_memory_bytes = 0
        #: of the content under way; once there is a file, all that is to be written to it
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        #: its size when all pieces are written
        self._file_size = 0
        self._unwritten_bytes = 0
        #: where the content under way begins in the file
        self._offset = 0

    def begin(self) -> None:
        """Begin with the next content."""
        if self._file is None:
            self._pieces = []
        self._offset = self._file_size

    def write(self, piece: bytes) -> None:
        """Add to the content. Raises ServiceUnavailable: the disk has no room for it."""
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
        """The content, to be read as a whole."""
        if self._file is None:
            return BytesIO(b"".join(self._pieces))
        return _FilePart(self, self._offset, self._file_size - self._offset)  # type: ignore[return-value]

    def read(self, offset: int, size: int) -> bytes:
        """A part of the file. Raises ServiceUnavailable: the disk has no room for it."""
        if self._file is None:
            raise ValueError("the file is closed")
        if self._pieces:
            self.flush()
        read = partial(os.pread, self._file.fileno(), size, offset)
        return read() if size <= _BLOCK_BYTES else run_blocking(read)

    def flush(self) -> None:
        """Write what is to be in the file. Raises ServiceUnavailable: the disk has no room for it."""
        try:
            run_blocking(self._write_pieces)
        except OSError as error:
            if out_of_files(error):
                raise
            logger.warning("a request body cannot be kept in %s (TMPDIR): %s", tempfile.gettempdir(), error.strerror)
            raise ServiceUnavailable("the service has no room for large bodies", retry_after_s=_RETRY_AFTER_S) from error

    def close(self) -> None:
        """Give the file up."""
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
    """One content in the file. The request closes its parts when it ends, and with them the file."""

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
