"""Copy of the predictor process's standard error, which native libraries write to without Python's logging."""

from __future__ import annotations

import os
import re
import threading
from typing import IO

_STDERR = 2

#: Lines that TensorFlow writes at every start and log level, and that are useless for a user.
_NOISE = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on|Created TensorFlow Lite XNNPACK delegate"
)


def pass_on(source: IO[bytes]) -> None:
    """Start to copy lines, except the noise, to our own standard error until the process has ended. Returns at once."""

    def copy() -> None:
        with source:
            for line in source:
                if not _NOISE.search(line):
                    os.write(_STDERR, line)

    threading.Thread(target=copy, name="predictor-stderr", daemon=True).start()
