"""Calls that wait for another server, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class SideBySide:
    """At most `width` calls at a time, over all who ask.

    Threads of the standard library: greenlets where gevent has patched it. They start with the first call, so after a fork.
    """

    def __init__(self, width: int) -> None:
        self._executor = ThreadPoolExecutor(width, thread_name_prefix="side-by-side")

    def begin(self, call: Callable[[], R]) -> Future[R]:
        return self._executor.submit(call)

    def map(self, call: Callable[[A], R], arguments: Iterable[A]) -> list[R]:
        """The answers in order; once every call has ended, raises what the first in order raised."""
        futures = [self._executor.submit(call, argument) for argument in arguments]
        wait(futures)
        return [future.result() for future in futures]
