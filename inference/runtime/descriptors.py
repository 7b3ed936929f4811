"""Writing to file descriptors."""

from __future__ import annotations

import os


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes: the system may take a part of them in one call. Raises OSError."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
