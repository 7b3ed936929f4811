"""Several predictor processes behind one: a new model beside the old, and the old one until its last task has run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inference.errors import ConfigurationError
from inference.messages import ModelRef
from inference.models.predictor import BatchPredictions
from inference.models.protocol import Loaded

logger = logging.getLogger(__name__)


class Process(Protocol):
    """`PredictorProcess`, and what stands for it in tests."""

    @property
    def references(self) -> Mapping[str, ModelRef]: ...

    @property
    def loaded(self) -> Mapping[str, Loaded]: ...

    def start(self, should_stop: Callable[[], bool]) -> bool: ...

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions: ...

    def stop(self) -> None: ...

    def retire(self) -> None: ...


class SwitchingPredictor:
    """Runs each batch on the version that its tasks were accepted for, wherever that is warm; else on the current one.

    Three processes at the most, each with one version of every model of the worker: the current one; a candidate, which is
    warm and not yet decided on; and the one that was current before, while tasks of its versions may come.
    """

    def __init__(self, current: Process) -> None:
        self._lock = threading.Lock()
        self._current = current
        self._candidate: Process | None = None
        self._former: Process | None = None

    @property
    def references(self) -> Mapping[str, ModelRef]:
        """The current version of each model."""
        return self._current.references

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        return self._current.loaded

    @property
    def former_references(self) -> list[ModelRef]:
        """Versions that only the former process has."""
        with self._lock:
            former, current = self._former, self._current
        return [model for name, model in former.references.items() if model != current.references[name]] if former else []

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Start what is not running; False when `should_stop` said so first.

        Raises:
            ConfigurationError: a model of the current process cannot be loaded.
        """
        with self._lock:
            others = [process for process in (self._candidate, self._former) if process is not None]
            current = self._current
        for process in others:
            try:
                process.start(should_stop)
            except ConfigurationError as error:
                logger.warning("%s; its tasks run on the current version", error.detail)
                self._forget(process)
        return current.start(should_stop)

    def predict(self, model: ModelRef, slots: Sequence[int]) -> BatchPredictions:
        """Predict the images in `slots` of the model's arena; the answer says on which version.

        Raises:
            PredictionFailed, PredictorCrashed, PredictorNotRunning: see `PredictorProcess.predict`.
        """
        with self._lock:
            processes = (self._current, self._candidate, self._former)
        holder = next((one for one in processes if one is not None and one.references.get(model.name) == model), processes[0])
        return holder.predict(model.name, slots)

    def stop(self) -> None:
        """End every process; a call that runs ends with PredictorCrashed."""
        with self._lock:
            processes = (self._current, self._candidate, self._former)
        for process in processes:
            if process is not None:
                process.stop()

    def use(self, process: Process) -> None:
        """Take `process` in place of the current one, before any task comes."""
        with self._lock:
            ended, self._current = self._current, process
        ended.retire()

    def stand_by(self, candidate: Process) -> None:
        """Take a warm process in beside the current one."""
        with self._lock:
            self._candidate = candidate

    def dismiss(self) -> None:
        """End the candidate."""
        if self._candidate is not None:
            self._forget(self._candidate)

    def promote(self) -> None:
        """Make the candidate the current process. The one that was former until now ends."""
        with self._lock:
            if self._candidate is None:
                return
            ended = self._former
            self._current, self._former, self._candidate = self._candidate, self._current, None
        if ended is not None:
            ended.retire()

    def end_former(self) -> None:
        """No task of its versions is to come."""
        if self._former is not None:
            self._forget(self._former)

    def _forget(self, process: Process) -> None:
        with self._lock:
            if process is self._candidate:
                self._candidate = None
            if process is self._former:
                self._former = None
        process.retire()
