"""`PredictorProcess` without a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from inference.domain import ModelRef
from inference.errors import ConfigurationError
from inference.models.predictor.client import BatchPredictions, PredictorNotRunning
from inference.models.predictor.protocol import CustomResult, Loaded


class FakeProcess:
    """Answers each image with its slot's number.

    Args:
        fails: text of the ConfigurationError that `start` raises.
        images_per_s, cost_ms: as the warm-up measured them.
    """

    def __init__(
        self,
        references: Mapping[str, ModelRef],
        *,
        fails: str = "",
        images_per_s: float = 0.0,
        cost_ms: Mapping[int, float] | None = None,
    ) -> None:
        self.references = dict(references)
        self.fails = fails
        self.images_per_s = images_per_s
        self.cost_ms = cost_ms or {}
        #: as the answer to a batch says it
        self.predict_ms = 0.5
        self.custom: tuple[CustomResult, ...] = ()
        self.is_running = False
        self.was_retired = False
        self.starts = 0
        #: `start` waits for it, and asks meanwhile whether it should stop
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        warm = {name: Loaded(name, 1, 0.5, images_per_s=self.images_per_s, cost_ms=self.cost_ms) for name in self.references}
        return warm if self.is_running else {}

    def start(self, should_stop: Callable[[], bool]) -> bool:
        self.starts += not self.is_running
        while not self.gate.wait(0.01):
            if should_stop():
                return False
        if self.fails:
            raise ConfigurationError(self.fails)
        self.is_running = not should_stop()
        return self.is_running

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        if not self.is_running:
            raise PredictorNotRunning("the process is not running")
        self.calls.append((model, tuple(slots)))
        return BatchPredictions(
            np.array(slots, np.float32).reshape(-1, 1), self.predict_ms, self.references[model], custom=self.custom
        )

    def stop(self) -> None:
        self.is_running = False

    def retire(self) -> None:
        self.is_running = False
        self.was_retired = True
