"""What the predictor process writes to standard error, native libraries past Python's logging among it."""

from __future__ import annotations

import os
import re
import threading
from typing import IO

_STDERR = 2

#: Lines that TensorFlow writes at every start whatever its log level, and that tell a user nothing.
_NOISE = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on|Created TensorFlow Lite XNNPACK delegate"
)


def pass_on(source: IO[bytes]) -> None:
    """Copy lines to our own standard error, less the noise, until the process has ended. Returns at once."""

    def copy() -> None:
        with source:
            for line in source:
                if not _NOISE.search(line):
                    os.write(_STDERR, line)

    threading.Thread(target=copy, name="predictor-stderr", daemon=True).start()
