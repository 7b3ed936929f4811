"""Health of a worker, as its probes report it: from this process alone, without a call of any server."""

from __future__ import annotations

from collections.abc import Callable

from inference.runtime.health import OK, Checks, progress_check
from tasks.worker.worker import InferenceWorker


class WorkerHealth:
    """Liveness and readiness of a worker. Its methods may be called on any thread, from the start of the process on.

    Args:
        is_stopping: whether the worker was told to end.
        stuck: by name, the loops outside of the pipelines that make no progress, as `LoopWatch.stuck` returns them.
        consumption: `OK`, or why no message is taken from the queues.
    """

    def __init__(
        self, *, is_stopping: Callable[[], bool], stuck: Callable[[], dict[str, float]], consumption: Callable[[], str]
    ) -> None:
        self._is_stopping = is_stopping
        self._stuck = stuck
        self._consumption = consumption
        #: None until its models are warm
        self.worker: InferenceWorker | None = None

    def live(self) -> Checks:
        """Whether each loop makes progress or is idle. Models that load, and a server that is down, are no fault."""
        threads = self.worker.stuck() if self.worker else {}
        return {"threads": progress_check(threads | self._stuck())}

    def ready(self) -> Checks:
        """Whether the models are warm, and messages are taken from their queues."""
        if self._is_stopping():
            return {"process": "stopping"}
        if self.worker is None:
            return {"process": "starting"}
        return {"models": _models_check(self.worker), "consumer": self._consumption()}


def _models_check(worker: InferenceWorker) -> str:
    missing = [model for model in worker.predictor.references if model not in worker.predictor.loaded]
    return f"not loaded: {', '.join(missing)}" if missing else OK
