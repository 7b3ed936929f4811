"""Replacement of the predictor process that serves by another one, between two batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inference.domain import ModelRef
from inference.models.predictor.client import BatchPredictions, Predictor, PredictorNotRunning
from inference.models.predictor.protocol import Loaded


class Process(Predictor, Protocol):
    """Interface of `DevicePredictors`: one version of every model of the worker."""

    def retire(self) -> None: ...


class VersionedPredictor:
    """Run each batch on the process that serves when the batch starts."""

    def __init__(self, process: Process) -> None:
        self._serving = process

    @property
    def references(self) -> Mapping[str, ModelRef]:
        """The version of each model that is served."""
        return self._serving.references

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        return self._serving.loaded

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Start the process that serves if it is down; False when `should_stop` said so first.

        Raises:
            ConfigurationError: a model cannot be loaded.
        """
        while True:
            process = self._serving
            is_up = self._start_while_serving(process, should_stop)
            if process is self._serving:
                return is_up
            process.retire()  # it was replaced while it started

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        """Predict the images in `slots` of the model's arena; the answer says on which version.

        Raises:
            PredictionFailed, PredictorCrashed, PredictorNotRunning: see `PredictorProcess.predict`.
        """
        while True:
            process = self._serving
            try:
                return process.predict(model, slots)
            except PredictorNotRunning:
                if process is self._serving:
                    raise
                # It was replaced, and ended, before it got the batch.

    def switch_to(self, process: Process) -> None:
        """Serve `process` from the next batch on. The one that served ends, after the batch that it runs."""
        replaced, self._serving = self._serving, process
        replaced.retire()

    def stop(self) -> None:
        """End the process; a call that runs ends with PredictorCrashed."""
        self._serving.stop()

    def _start_while_serving(self, process: Process, should_stop: Callable[[], bool]) -> bool:
        """Start `process`, but no longer than it serves: `switch_to` waits until the start has ended."""
        return process.start(lambda: should_stop() or process is not self._serving)
