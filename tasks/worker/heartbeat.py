"""Heartbeat of this worker: the announcement of its warm models to the other processes."""

from __future__ import annotations

import logging

from inference.domain import ModelRef
from inference.errors import ServiceUnavailable
from inference.models.predictor.client import Predictor
from inference.models.predictor.protocol import Loaded
from inference.rollout.worker_registry import ANNOUNCE_INTERVAL_S, LoadedModelInfo, WorkerInfo, WorkerPresence
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)


def _info(model: ModelRef, warm: Loaded) -> LoadedModelInfo:
    batch_ms = {str(size): round(ms, 3) for size, ms in warm.cost_ms.items()}
    return LoadedModelInfo(model.name, model.version, model.digest, warm.predict_ms, warm.images_per_s, warm.runtime, batch_ms)


class HeartbeatPublisher(Stage):
    """Announces to the other processes the models that are warm in this worker."""

    name = "presence"

    def __init__(self, presence: WorkerPresence, holder: str, predictor: Predictor) -> None:
        super().__init__()
        self._presence = presence
        self._holder = holder
        self._predictor = predictor

    def step(self) -> None:
        loaded = self._predictor.loaded
        models = tuple(
            _info(model, warm) for name, model in self._predictor.references.items() if (warm := loaded.get(name)) is not None
        )
        try:
            self._presence.announce(WorkerInfo(self._holder, models))
        except ServiceUnavailable as error:
            logger.warning("cannot announce this worker: %s", error)
        self.stopping.wait(ANNOUNCE_INTERVAL_S)
