"""Writer of log lines that does not block the event loop: a reader of standard error may be slow, or stop reading."""

from __future__ import annotations

import logging
from typing import Any

import gevent

from inference.runtime.descriptors import write_all
from inference.runtime.gevent import run_blocking

logger = logging.getLogger(__name__)

_INTERVAL_S = 0.1
#: Lines that wait, bytes; further lines are dropped.
_MAX_BYTES = 2**20
#: A pipe takes so many bytes in one piece (PIPE_BUF): other processes write to it too, and must not end up within a line.
_PIECE_BYTES = 4096


class LineWriter:
    """Collects lines, and writes them a little later on a thread of the operating system.

    Args:
        descriptor: of the file, pipe or terminal.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        self._flushing: Any = None

    def write(self, line: bytes) -> None:
        """Add a line, which ends with a line end. It is dropped if too many wait."""
        if self._bytes > _MAX_BYTES:
            self._dropped += 1
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._flushing is None:
            self._flushing = gevent.spawn_later(_INTERVAL_S, self._flush_all)

    def flush(self) -> None:
        """Write all lines, and wait until they are written."""
        lines, self._lines, self._bytes = self._lines, [], 0
        dropped, self._dropped = self._dropped, 0
        pieces = _pieces(lines)
        try:
            run_blocking(lambda: _write_pieces(self._descriptor, pieces))
        except OSError:
            return  # the reader has gone: nobody could be told
        if dropped:
            logger.warning("%d lines of the access log were dropped: standard error takes them too slowly", dropped)

    def _flush_all(self) -> None:
        try:
            while self._lines:
                self.flush()
        finally:
            self._flushing = None  # also after an error: otherwise no later line would be written


def _pieces(lines: list[bytes]) -> list[bytes]:
    """Join lines to pieces that are written at once."""
    pieces: list[bytes] = []
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > _PIECE_BYTES and piece:
            pieces.append(b"".join(piece))
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    return [*pieces, b"".join(piece)]


def _write_pieces(descriptor: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        write_all(descriptor, piece)
