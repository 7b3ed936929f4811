"""A process that may not open another file: told apart from other errors, and logged once a minute."""

from __future__ import annotations

import errno
import logging
import time

logger = logging.getLogger(__name__)

#: Errors that mean that the process or the system has no file, or no memory for one, left.
_NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SILENCE_S = 60.0


class _Report:
    """The line in the log.

    Attributes:
        silent_until: on the monotonic clock; one line stands for all that happens before.
    """

    silent_until = 0.0

    def __call__(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self.silent_until:
            self.silent_until = now + _SILENCE_S
            logger.error("%s: clients wait, or get 503, until others have gone (ulimit -n)", error.strerror)


report = _Report()


def ran_out(error: BaseException | None) -> OSError | None:
    """The error by which the system refused a file, where `error` is that or was caused by it; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            return error
        error = error.__cause__ or error.__context__
    return None
