"""Circuit breaker: after a call of a server has timed out, the next calls fail at once instead of waiting as long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ServerIsSilentError(Exception):
    """The server did not answer another call a moment ago, so this call was not made."""


class Breaker:
    """Guards the calls of one server. Safe to share between threads and greenlets.

    Args:
        pause_s: seconds for which calls fail after a call has timed out; the first call after that tries the server again.
        is_timeout: returns whether an error means that the server does not answer.
        clock: in seconds.
    """

    def __init__(
        self, pause_s: float, *, is_timeout: Callable[[BaseException], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause_s = pause_s
        self._is_timeout = is_timeout
        self._clock = clock
        self._open_until: float | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make one call of the server in the block.

        Raises:
            ServerIsSilentError: calls fail at once now.
        """
        if self._open_until is not None:
            if self._clock() < self._open_until:
                raise ServerIsSilentError
            self._open_until = self._clock() + self._pause_s  # this call tries the server; other calls fail meanwhile
        try:
            yield
        except BaseException as error:
            self._open_until = self._clock() + self._pause_s if self._is_timeout(error) else None
            raise
        self._open_until = None
