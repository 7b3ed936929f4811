"""One worker: its predictor process, a pipeline for each model, and the threads that keep it known."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence

from inference.errors import ServiceUnavailable
from inference.imaging import ImageLimits
from inference.models.arena import SlotArena
from inference.models.device_predictors import DevicePredictors
from inference.models.spec import ModelSpec
from inference.presence import WorkerPresence
from inference.settings import Settings
from inference.storage import ObjectStore
from inference.task_store.protocol import TaskStore
from tasks.adopting import Adopter
from tasks.batching import BatchPolicy
from tasks.errands import Errands
from tasks.jobs import Delivery, HeldJobs
from tasks.keeping import Announcer, LeaseKeeper
from tasks.pipeline import Pipeline, PipelinePolicy

logger = logging.getLogger(__name__)


class InferenceWorker:
    """What runs behind the Celery consumer.

    Args:
        specs: the models whose queues this worker consumes.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[ModelSpec],
        *,
        store: TaskStore,
        objects: ObjectStore,
        presence: WorkerPresence,
    ) -> None:
        options = settings.worker
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.store = store
        self.queues = [spec.queue for spec in specs]
        self._drain_timeout_s = options.drain_timeout_s
        self._presence = presence
        self._held = HeldJobs()
        self.errands = Errands(store)
        self.adopter = Adopter(settings, specs)
        slots = 2 * options.max_batch_size + options.io_threads
        arenas = {spec.name: SlotArena(spec.input, slots) for spec in specs}
        self.predictor = DevicePredictors(
            {spec.name: (spec, arenas[spec.name]) for spec in specs},
            max_batch_size=options.max_batch_size,
            predict_timeout_s=options.predict_timeout_s,
            load_timeout_s=options.load_timeout_s,
            gpu=settings.gpu,
        )
        policy = PipelinePolicy(
            batch=BatchPolicy(options.max_batch_size, options.max_batch_wait_ms, options.max_attempts),
            limits=ImageLimits(settings.limits.max_pixels),
            io_threads=options.io_threads,
        )
        self._pipelines = {
            spec.name: Pipeline(
                spec=spec,
                arena=arenas[spec.name],
                predictor=self.predictor,
                store=store,
                objects=objects,
                owner=self.owner,
                held=self._held,
                policy=policy,
            )
            for spec in specs
        }
        self._keepers = (
            LeaseKeeper(store, self.owner, self._held, lease_s=settings.task_store.lease_s),
            Announcer(presence, self.owner, self.predictor, list(specs)),
            self.errands,
        )

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Load the models and start the threads; False when `should_stop` said so first.

        Raises:
            ConfigurationError: a model cannot be loaded.
        """
        logger.info("loading %s", ", ".join(self._pipelines))
        if not self.predictor.start(should_stop):
            return False
        for model in self.predictor.loaded.values():
            logger.info("%s is warm: %.1f ms for one image", model.model, model.predict_ms)
        for keeper in self._keepers:
            keeper.start()
        for pipeline in self._pipelines.values():
            pipeline.start()
        return True

    def serves(self, model: str) -> bool:
        return model in self._pipelines

    def submit(self, delivery: Delivery) -> None:
        self._pipelines[delivery.message.model.name].submit(delivery)

    def stop(self) -> None:
        """Finish and commit what runs, give the rest back, end the predictor."""
        for pipeline in self._pipelines.values():
            pipeline.begin_stop()
        finished = [pipeline.stop(self._drain_timeout_s) for pipeline in self._pipelines.values()]
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join(1)
        try:
            if all(finished):
                self._give_back()
            else:
                logger.error("the running batch did not end within %g s; it runs again", self._drain_timeout_s)
            self._presence.leave(self.owner)
        except ServiceUnavailable as error:
            logger.warning("cannot give back what was prefetched (%s); its leases run out", error)
        self.predictor.stop()

    def _give_back(self) -> None:
        task_ids = self._held.task_ids()
        if task_ids:
            logger.info("giving back %d prefetched tasks", len(task_ids))
            self.store.release(self.owner, task_ids)
