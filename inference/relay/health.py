"""Health of a relay, as its probes report it: from this process alone, without a call of any server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from inference.runtime.health import OK, Checks, progress_check
from inference.runtime.loop_watch import LoopWatch


class Runner(Protocol):
    """A loop of the relay, which has a thread of its own."""

    watch: LoopWatch
    #: limit of one turn, seconds
    turn_limit_s: float

    def run(self, stopping: threading.Event) -> None:
        """Run until `stopping` is set."""


class RelayHealth:
    """Liveness and readiness of a relay. Its methods may be called on any thread.

    Args:
        runners: by name.
    """

    def __init__(self, runners: Mapping[str, Runner], stopping: threading.Event) -> None:
        self._runners = runners
        self._stopping = stopping

    def live(self) -> Checks:
        """Whether each loop makes progress. A delivery that waits for a sink that is down makes progress too."""
        stuck = {name: age_s for runner in self._runners.values() for name, age_s in runner.watch.stuck().items()}
        return {"threads": progress_check(stuck)}

    def ready(self) -> Checks:
        """Whether the relay has started, and was not told to end."""
        return {"process": "stopping" if self._stopping.is_set() else OK}
