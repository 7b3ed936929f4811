"""One worker: its predictor process, a pipeline for each model, and the threads in the background."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inference.broker.rejected import RejectedMessages
from inference.errors import ServiceUnavailable
from inference.imaging import ImageLimits
from inference.metrics.worker import tasks_in_flight
from inference.models.files import ModelFiles
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.device_predictors import DevicePredictors
from inference.models.predictor.versioned_predictor import VersionedPredictor
from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import RolloutStore
from inference.rollout.runtime_config import ConfigSnapshot
from inference.rollout.worker_registry import WorkerPresence
from inference.runtime.loop_watch import TURN_LIMIT_S
from inference.runtime.memory import return_large_blocks
from inference.settings import Settings, WorkerSettings
from inference.storage.protocol import ObjectStore
from inference.task_store.stores import WorkerStore
from tasks.pipeline.batch_runner import BatchPolicy
from tasks.pipeline.decode_memory import DecodeMemory
from tasks.pipeline.jobs import Delivery, HeldJobs
from tasks.pipeline.pipeline import Pipeline, PipelinePolicy
from tasks.worker.background_calls import BackgroundStoreCalls
from tasks.worker.heartbeat import HeartbeatPublisher
from tasks.worker.lease_renewal import LeaseRenewer
from tasks.worker.model_reloader import ModelReloader, Specs
from tasks.worker.plain_messages import PlainMessageReader
from tasks.worker.queue_preparation import QueuePreparation

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

#: Shared memory that a model may take for all of its images that are held, decoded or running.
_MAX_ARENA_BYTES = 2**26


class InferenceWorker:
    """Everything that runs behind the Celery consumer.

    Args:
        specs: models whose queues this worker consumes.
        models: the same models as a registry, for `ConfigSnapshot`.
        tracer: None while traces are off.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[ModelSpec],
        *,
        store: WorkerStore,
        objects: ObjectStore,
        presence: WorkerPresence,
        desired: RolloutStore,
        files: ModelFiles,
        models: ModelRegistry,
        rejected: RejectedMessages,
        tracer: Tracer | None = None,
    ) -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.store = store
        self.tracer = tracer
        self._settings = settings
        self._options = options = settings.worker
        self._specs = specs
        self.queues = [spec.queue for spec in specs]
        self._presence = presence
        self._held = HeldJobs()
        tasks_in_flight.set_function(self._held.__len__)
        self.store_calls = BackgroundStoreCalls(store, rejected)
        self.plain_messages = PlainMessageReader(settings, specs, snapshot=lambda: self._snapshot(models))
        by_name = {spec.name: spec for spec in specs}
        self._arenas = {name: SlotArena(spec.image_input, _slots(spec, options)) for name, spec in by_name.items()}
        self.predictor = VersionedPredictor(self._make_process(by_name))
        self._reloader = self._make_reloader(desired, files, by_name)
        return_large_blocks(from_bytes=8 * 2**20, kept_bytes=32 * 2**20)  # Pillow's blocks of pixels have up to 16 MiB
        self._memory = DecodeMemory(options.decode_memory_mb * 2**20, max_large=max(1, options.io_threads - 1))
        self._pipelines = {name: self._make_pipeline(spec, objects) for name, spec in by_name.items()}
        self._background_stages = (
            LeaseRenewer(store, self.holder, self._held, lease_s=settings.task_store.lease_s),
            HeartbeatPublisher(presence, self.holder, self.predictor),
            self.store_calls,
            self._reloader,
        )

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Load the models and start the threads; return False if `should_stop` returned true before.

        Raises:
            ConfigurationError: a model cannot be loaded.
        """
        logger.info("loading %s", ", ".join(self._pipelines))
        is_up = False
        try:
            is_up = self._reloader.start_predictor(should_stop)
        finally:
            if not is_up:
                self.predictor.stop()
        if not is_up:
            return False
        for model in self.predictor.loaded.values():
            logger.info(
                "%s is warm: %.3g ms for one image, by %s%s",
                model.model,
                model.predict_ms,
                model.runtime,
                f" ({model.runtime_reason})" if model.runtime_reason else "",
            )
        for stage in self._background_stages:
            stage.start()
        for pipeline in self._pipelines.values():
            pipeline.start()
        return True

    def _snapshot(self, models: ModelRegistry) -> ConfigSnapshot:
        return ConfigSnapshot(self._settings, models, self._reloader.state)

    def _make_process(self, models: Specs) -> DevicePredictors:
        return DevicePredictors(
            {name: (spec, self._arenas[name]) for name, spec in models.items()},
            max_batch_size=self._options.max_batch_size,
            predict_timeout_s=self._options.predict_timeout_s,
            load_timeout_s=self._options.load_timeout_s,
            gpu=self._settings.gpu,
        )

    def _make_reloader(self, desired: RolloutStore, files: ModelFiles, specs: Specs) -> ModelReloader:
        return ModelReloader(
            desired,
            files,
            self.predictor,
            holder=self.holder,
            specs=specs,
            make=self._make_process,
            preparation=QueuePreparation(self.store),
        )

    def _make_pipeline(self, spec: ModelSpec, objects: ObjectStore) -> Pipeline:
        options = self._options
        return Pipeline(
            spec=spec,
            arena=self._arenas[spec.name],
            predictor=self.predictor,
            store=self.store,
            objects=objects,
            holder=self.holder,
            held=self._held,
            memory=self._memory,
            tracer=self.tracer,
            policy=PipelinePolicy(
                batch=BatchPolicy(options.max_batch_size, options.max_batch_wait_ms, options.max_attempts),
                limits=ImageLimits(self._settings.limits.max_pixels),
                io_threads=options.io_threads,
                max_image_bytes=self._settings.max_image_bytes,
                batch_turn_limit_s=self._batch_turn_limit_s(),
            ),
        )

    def _batch_turn_limit_s(self) -> float:
        """Return the longest time of a batch's turn.

        Models of one process wait for each other's predictions, and for the restart of all processes, which are as many as the
        models at most.
        """
        predict_s = max(self._options.predict_timeout_s, *(spec.predict_timeout_s or 0.0 for spec in self._specs))
        return TURN_LIMIT_S + (self._options.load_timeout_s + predict_s) * len(self._specs)

    def stuck(self) -> dict[str, float]:
        """Return the threads that make no progress, as `LoopWatch.stuck` does."""
        found = [pipeline.stuck() for pipeline in self._pipelines.values()]
        found += [stage.watch.stuck() for stage in self._background_stages]
        return {name: age_s for one in found for name, age_s in one.items()}

    def serves(self, model: str) -> bool:
        return model in self._pipelines

    def submit(self, delivery: Delivery) -> None:
        self._pipelines[delivery.message.model.name].submit(delivery)

    def stop(self) -> None:
        """Finish and commit the running batches, give the other tasks back, end the predictor."""
        for pipeline in self._pipelines.values():
            pipeline.begin_stop()
        finished = [pipeline.stop(self._options.drain_timeout_s) for pipeline in self._pipelines.values()]
        for stage in self._background_stages:
            stage.stop()
        for stage in self._background_stages:
            stage.join(1)
        try:
            if all(finished):
                self._give_back()
            else:
                logger.error("the running batch did not end within %g s; it runs again", self._options.drain_timeout_s)
            self._presence.leave(self.holder)
        except ServiceUnavailable as error:
            logger.warning("cannot give prefetched tasks back (%s); their leases run out", error)
        self.predictor.stop()

    def _give_back(self) -> None:
        task_ids = self._held.task_ids()
        if task_ids:
            logger.info("giving back %d prefetched tasks", len(task_ids))
            self.store.release(self.holder, task_ids)


def _slots(spec: ModelSpec, options: WorkerSettings) -> int:
    """Return the number of slots: one for each image that is held if that takes little memory, else for two batches."""
    held = (options.prefetch_batches + 1) * options.max_batch_size  # a message is claimed whole
    least = 2 * options.max_batch_size + options.io_threads
    return max(least, min(held, _MAX_ARENA_BYTES // spec.image_input.bytes_per_image))
