"""Watch over the loops of a process: which of them have made no turn for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Limit of one turn, seconds. The calls of Redis, of the object store and of a sink have time-outs of seconds, and a loop that
#: repeats a call makes a turn with each try: a server that is down never reaches this limit.
TURN_LIMIT_S = 300.0


@dataclass
class _Loop:
    name: str
    limit_s: float
    turned_at: float


class LoopWatch:
    """Times of the last turns of loops, each of which runs on a thread of its own. Safe to share between threads.

    A loop that waits for work makes turns too. No server is asked: the times are in memory.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loops: dict[int, _Loop] = {}  # by thread

    def begin(self, name: str, limit_s: float = TURN_LIMIT_S) -> None:
        """Watch the loop of the calling thread from now on: each of its turns may take `limit_s` seconds."""
        self._loops[threading.get_ident()] = _Loop(name, limit_s, self._clock())

    def turn(self) -> None:
        """Note that the loop of the calling thread makes progress; do nothing on a thread without a watched loop."""
        loop = self._loops.get(threading.get_ident())
        if loop is not None:
            loop.turned_at = self._clock()

    def end(self) -> None:
        """End the watch over the loop of the calling thread."""
        self._loops.pop(threading.get_ident(), None)

    @contextmanager
    def watched(self, name: str, limit_s: float = TURN_LIMIT_S) -> Iterator[None]:
        """Watch the loop of the calling thread while the block runs."""
        self.begin(name, limit_s)
        try:
            yield
        finally:
            self.end()

    @property
    def is_watching(self) -> bool:
        """Whether any loop is watched."""
        return bool(self._loops)

    def stuck(self) -> dict[str, float]:
        """Return the loops whose current turn takes longer than their limit, by name, each with the seconds of that turn."""
        now = self._clock()
        return {loop.name: now - loop.turned_at for loop in list(self._loops.values()) if now - loop.turned_at > loop.limit_s}
