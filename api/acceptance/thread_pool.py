"""Concurrent calls that wait for another server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class BoundedThreadPool:
    """Pool of threads that runs at most `width` calls at a time, over all callers.

    The threads are greenlets if gevent has patched the standard library. They start with the first call, thus after a fork.
    """

    def __init__(self, width: int) -> None:
        self._executor = ThreadPoolExecutor(width, thread_name_prefix="bounded-pool")

    def begin(self, call: Callable[[], R]) -> Future[R]:
        return self._executor.submit(call)

    def map(self, call: Callable[[A], R], arguments: Iterable[A], *, timeout_s: float) -> list[R]:
        """Call with each argument; returns the results in order.

        Raises:
            Exception: the first call that failed raised it; calls that have not begun are not made.
            TimeoutError: not every call has ended within `timeout_s`; calls that have not begun are not made.
        """
        futures = [self._executor.submit(call, argument) for argument in arguments]
        try:
            done, late = wait(futures, timeout_s, return_when=FIRST_EXCEPTION)
            failed = next((future for future in futures if future in done and future.exception()), None)
            if failed is None and late:
                raise TimeoutError
            return [failed.result()] if failed is not None else [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
