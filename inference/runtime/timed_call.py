"""Call that may hang, whose callers wait for its answer only for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from inference.errors import ServiceUnavailable

T = TypeVar("T")


class TimedCall(Generic[T]):
    """Makes a call on a thread of its own. While it hangs, it is not made again."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._running: Future[T] | None = None

    def __call__(self, timeout_s: float) -> T:
        """Return the answer, or raise the error of the call. Raises ServiceUnavailable: the answer did not come in time."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            running = self._running
        try:
            return running.result(timeout_s)
        except TimeoutError as error:
            raise ServiceUnavailable(f"there was no answer within {timeout_s:g} s") from error

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._call())
        except Exception as error:  # noqa: BLE001 it is raised where the answer is awaited
            future.set_exception(error)
