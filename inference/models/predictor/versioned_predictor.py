"""Replacement of the serving predictor process by another one, between two batches."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inference.domain import ModelRef
from inference.models.predictor.client import BatchPredictions, Predictor, PredictorNotRunning
from inference.models.predictor.protocol import Loaded

#: Batches that show how much slower than at its warm-up a process is lately, and their age at most, seconds.
_RECENT_BATCHES, _RECENT_S = 8, 5.0


class Process(Predictor, Protocol):
    """Interface of `DevicePredictors`: one version of every model of the worker."""

    def retire(self) -> None: ...


class VersionedPredictor:
    """Run each batch on the process that serves when the batch starts.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, process: Process, clock: Callable[[], float] = time.monotonic) -> None:
        self._serving = process
        self._clock = clock
        #: of each batch: its end, its version, its size in images, its milliseconds in the process
        self._recent: deque[tuple[float, ModelRef, int, float]] = deque(maxlen=_RECENT_BATCHES)

    @property
    def references(self) -> Mapping[str, ModelRef]:
        """Served version of each model."""
        return self._serving.references

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        return self._serving.loaded

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Start the serving process if it is down; False if `should_stop` returned True first.

        Raises:
            ConfigurationError: a model cannot be loaded.
        """
        while True:
            process = self._serving
            is_up = self._start_while_serving(process, should_stop)
            if process is self._serving:
                return is_up
            process.retire()  # another process has replaced it during the start

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        """Predict the images in `slots` of the model's arena; the result names the version that ran.

        Raises:
            PredictionFailed, PredictorCrashed, PredictorNotRunning: see `PredictorProcess.predict`.
        """
        while True:
            process = self._serving
            try:
                predictions = process.predict(model, slots)
            except PredictorNotRunning:
                if process is self._serving:
                    raise
                # Another process has replaced it before it got the batch.
            else:
                if not predictions.custom:  # the time of a model's code is not in its warm-up
                    self._recent.append((self._clock(), predictions.model, len(slots), predictions.predict_ms))
                return predictions

    def slowdown(self, model: str) -> float:
        """Return how many times as long as at its warm-up a batch of the served version takes lately; 1 without recent batches.

        It is over 1 where another process has a part of the cores, such as one that loads a candidate.
        """
        served, warm = self.references[model], self.loaded.get(model)
        if warm is None or not warm.cost_ms:
            return 1.0
        oldest_at = self._clock() - _RECENT_S
        recent = [(size, ms) for at, ran, size, ms in tuple(self._recent) if ran == served and at >= oldest_at]
        return max(1.0, min((ms / _warm_ms(size, warm.cost_ms) for size, ms in recent), default=1.0))

    def switch_to(self, process: Process) -> None:
        """Serve `process` from the next batch on; the previous process ends after its running batch."""
        replaced, self._serving = self._serving, process
        replaced.retire()

    def stop(self) -> None:
        """End the process; a running call raises PredictorCrashed."""
        self._serving.stop()

    def _start_while_serving(self, process: Process, should_stop: Callable[[], bool]) -> bool:
        """Start `process`, but no longer than it serves: `switch_to` waits until the start has ended."""
        return process.start(lambda: should_stop() or process is not self._serving)


def _warm_ms(size: int, cost_ms: Mapping[int, float]) -> float:
    """Milliseconds of a batch at warm-up, in chunks of the size that suits it best."""
    return min(math.ceil(size / chunk) * ms for chunk, ms in cost_ms.items())
