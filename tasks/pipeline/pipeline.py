"""The pipeline of one model: from a delivered message to a committed outcome, without Celery.

Delivery ──▶ Intake ──▶ FetchStage ──▶ Batcher ──▶ BatchRunner ──▶ Committer ──▶ Delivery done
             lease      fetch, decode                 predict      commit        (acknowledge)
               └────────── isolated ────────▲
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from inference.imaging import ImageLimits
from inference.metrics.worker import ModelInstruments
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import Predictor
from inference.models.spec import ModelSpec
from inference.runtime.loop_watch import TURN_LIMIT_S
from inference.storage.protocol import ObjectStore
from inference.task_store.stores import WorkerStore
from tasks.pipeline.batch_runner import BatchPolicy, BatchRunner
from tasks.pipeline.batch_times import BatchTimes
from tasks.pipeline.clock import StoreClock
from tasks.pipeline.commit import Committer
from tasks.pipeline.context import StageContext
from tasks.pipeline.dead_letter import DeadLetterStage
from tasks.pipeline.decode_memory import DecodeMemory
from tasks.pipeline.fetch import Fetcher, FetchStage
from tasks.pipeline.intake import Intake
from tasks.pipeline.jobs import Delivery, HeldJobs, Job
from tasks.pipeline.stage import Stage

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelinePolicy:
    batch: BatchPolicy
    limits: ImageLimits
    io_threads: int = 4
    #: limit for an image in the object store; None: no limit
    max_image_bytes: int | None = None
    #: longest time of one prediction or restart of the predictor, other models' included, seconds
    batch_turn_limit_s: float = TURN_LIMIT_S


class Pipeline:
    """Stages of one model, in order.

    Args:
        holder: name of this worker in leases and outcomes.
        held: jobs that this worker holds, of all models.
        memory: budget for images while they are decoded, of all models.
        tracer: None while traces are off.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        arena: SlotArena,
        predictor: Predictor,
        store: WorkerStore,
        objects: ObjectStore,
        holder: str,
        held: HeldJobs,
        memory: DecodeMemory | None = None,
        policy: PipelinePolicy,
        tracer: Tracer | None = None,
    ) -> None:
        self._model = spec.name
        times = BatchTimes(lambda: predictor.references[spec.name], warm_up_s=partial(_warm_up_s, predictor, spec.name))
        context = StageContext(spec, store, holder, held, StoreClock(), times, ModelInstruments(spec.name), tracer)
        fetcher = Fetcher(objects, spec, arena, policy.limits, memory=memory, max_bytes=policy.max_image_bytes)
        self._committer = Committer(context)
        self._dead_letters = DeadLetterStage(context, objects)
        self._batch_runner = BatchRunner(
            context,
            predictor=predictor,
            arena=arena,
            fetcher=fetcher,
            policy=policy.batch,
            committer=self._committer,
            move_to_dead_letters=self._dead_letters.inbox.put,
            turn_limit_s=policy.batch_turn_limit_s,
        )
        self._fetch = FetchStage(
            fetcher, threads=policy.io_threads, pass_on=self._batch_runner.ready.put, fail=self._batch_runner.fail
        )
        self._intake = Intake(context, pass_on=self._route, fail=self._batch_runner.fail)

    def start(self) -> None:
        for stage in self._stages:
            stage.start()

    def submit(self, delivery: Delivery) -> None:
        """Take a message; its `on_done` is called later."""
        self._intake.inbox.put(delivery)

    def begin_stop(self) -> None:
        """Let no stage start new work."""
        for stage in self._stages[:-1]:
            stage.stop()

    def stop(self, timeout_s: float) -> bool:
        """Finish and commit the running batch, start no other; return False if that took too long."""
        deadline = time.monotonic() + timeout_s
        self.begin_stop()
        ended = [stage.join(max(0.0, deadline - time.monotonic())) for stage in self._stages[:-1]]
        self._committer.stop()
        ended.append(self._committer.join(max(0.0, deadline - time.monotonic())))
        if all(ended):
            self._committer.commit_rest()
        return all(ended)

    def stuck(self) -> dict[str, float]:
        """Return the threads that make no progress, as `LoopWatch.stuck` does, their names with the model's."""
        return {f"{name} of {self._model}": age_s for stage in self._stages for name, age_s in stage.watch.stuck().items()}

    @property
    def _stages(self) -> tuple[Stage, ...]:
        return self._intake, self._fetch, self._batch_runner, self._dead_letters, self._committer

    def _route(self, jobs: Sequence[Job]) -> None:
        """Pass leased jobs on. An isolated job is fetched only after its start is counted, so it skips the fetch stage."""
        self._batch_runner.ready.put([job for job in jobs if job.isolated])
        self._fetch.take(job for job in jobs if not job.isolated)


def _warm_up_s(predictor: Predictor, model: str) -> float:
    """Return the seconds that one image took at warm-up; infinite while the process is down."""
    loaded = predictor.loaded.get(model)
    return loaded.predict_ms / 1000 if loaded else math.inf
