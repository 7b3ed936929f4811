"""A thread of the pipeline. If it fails, it ends the process, so that no caller waits for it for ever."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from inference.errors import ServiceUnavailable
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Exit code after an internal error (EX_SOFTWARE of sysexits.h).
EXIT_SOFTWARE = 70
#: Seconds between two tries of a store that is down.
RETRY_INTERVAL_S = 0.5


def end_process() -> None:
    """End the process at once: the leases run out, and another worker takes the tasks."""
    os._exit(EXIT_SOFTWARE)


class Stage:
    """Base of a stage: calls `step` repeatedly on `threads` threads until `stop`.

    Args:
        turn_limit_s: time after which a step without progress counts as stuck, seconds.
    """

    name = "stage"

    def __init__(
        self, *, threads: int = 1, on_fault: Callable[[], None] = end_process, turn_limit_s: float = TURN_LIMIT_S
    ) -> None:
        self.stopping = threading.Event()
        #: the stage's threads; a step that takes long for a good reason notes its progress here
        self.watch = LoopWatch()
        self._turn_limit_s = turn_limit_s
        self._on_fault = on_fault
        self._threads = [
            threading.Thread(target=self._run, name=f"{self.name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to end; `join` waits for them."""
        self.stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads; return whether all of them have ended in time."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def step(self) -> None:
        """Do one turn; return within a second if there is nothing to do, so that a stop is noticed."""
        raise NotImplementedError

    def end(self) -> None:
        """Hook that a thread calls after its last step, if no step failed. It does nothing here."""

    def _run(self) -> None:
        try:
            with self.watch.watched(threading.current_thread().name, self._turn_limit_s):
                while not self.stopping.is_set():
                    self.watch.turn()
                    self.step()
                self.end()
        except Exception:
            logger.critical("the %s thread failed; this worker ends", self.name, exc_info=True)
            self._on_fault()

    def until_available(self, call: Callable[[], T], *, give_up: Callable[[], bool]) -> T | None:
        """Return the answer of `call`, repeated while the store is down; None once `give_up` returns true."""
        failures = 0
        while True:
            self.watch.turn()
            try:
                return call()
            except ServiceUnavailable as error:
                if give_up():
                    return None
                failures += 1
                log = logger.warning if failures == 1 else logger.debug
                log("%s: %s; trying again", self.name, error)
                self.stopping.wait(RETRY_INTERVAL_S)
