"""What native libraries write to standard error past Python's logging."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: Lines that TensorFlow writes at every start whatever its log level, and that tell a user nothing.
TENSORFLOW_NOISE = re.compile(rb"All log messages before absl::InitializeLog|oneDNN custom operations are on")

_STDERR = 2


@contextmanager
def filtered_stderr(noise: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back what the whole process writes to standard error; pass it on at the end, less the lines of `noise`."""
    original = os.dup(_STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(original, _STDERR)
            os.close(original)
            held.seek(0)
            for line in held:
                if not noise.search(line):
                    os.write(_STDERR, line)
