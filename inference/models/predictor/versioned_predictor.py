"""Replacement of the serving predictor process by another one, between two batches."""

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
                return process.predict(model, slots)
            except PredictorNotRunning:
                if process is self._serving:
                    raise
                # Another process has replaced it before it got the batch.

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
