"""From a delivered message to a committed outcome, for one model. No Celery here.

Delivery ──▶ Intake ──▶ FetchStage ──▶ ReadyQueue ──▶ Batcher ──▶ Committer ──▶ Delivery done
             lease      fetch, decode                 predict      commit        (acknowledge)
               └────────── to run alone ────▲
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from inference.imaging import ImageLimits
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import Predictor
from inference.models.spec import ModelSpec
from inference.storage.protocol import ObjectStore
from inference.task_store.stores import WorkerStore
from tasks.pipeline.batch import Batcher, BatchPolicy
from tasks.pipeline.batch_times import BatchTimes
from tasks.pipeline.clock import StoreClock
from tasks.pipeline.commit import Committer
from tasks.pipeline.dead_letter import DeadLetterStage
from tasks.pipeline.decode_memory import DecodeMemory
from tasks.pipeline.fetch import Fetcher, FetchStage
from tasks.pipeline.jobs import Delivery, HeldJobs, Job
from tasks.pipeline.lease import Intake
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelinePolicy:
    batch: BatchPolicy
    limits: ImageLimits
    io_threads: int = 4
    #: limit for an image in the object store; None: no limit
    max_image_bytes: int | None = None


class Pipeline:
    """The stages of one model, in order.

    Args:
        owner: this worker, as leases and outcomes name it.
        held: what this worker holds, over all models.
        memory: what its images may take while they are decoded, over all models.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        arena: SlotArena,
        predictor: Predictor,
        store: WorkerStore,
        objects: ObjectStore,
        owner: str,
        held: HeldJobs,
        memory: DecodeMemory | None = None,
        policy: PipelinePolicy,
    ) -> None:
        clock = StoreClock()
        times = BatchTimes(lambda: predictor.references[spec.name], warm_up_s=partial(_warm_up_s, predictor, spec.name))
        fetcher = Fetcher(objects, spec, arena, policy.limits, memory=memory, max_bytes=policy.max_image_bytes)
        self._committer = Committer(store, owner, held)
        self._undertaker = DeadLetterStage(store, objects, owner, held)
        self._batcher = Batcher(
            spec=spec,
            predictor=predictor,
            arena=arena,
            fetcher=fetcher,
            store=store,
            owner=owner,
            held=held,
            policy=policy.batch,
            committer=self._committer,
            move_to_dead_letters=self._undertaker.inbox.put,
            clock=clock,
            times=times,
        )
        self._fetch = FetchStage(fetcher, threads=policy.io_threads, pass_on=self._batcher.ready.put, fail=self._batcher.fail)
        self._intake = Intake(store, owner, held, clock=clock, times=times, pass_on=self._route, fail=self._batcher.fail)

    def start(self) -> None:
        for stage in self._stages:
            stage.start()

    def submit(self, delivery: Delivery) -> None:
        """Take a message; its `on_done` follows."""
        self._intake.inbox.put(delivery)

    def begin_stop(self) -> None:
        """Start nothing new."""
        for stage in self._stages[:-1]:
            stage.stop()

    def stop(self, timeout_s: float) -> bool:
        """Finish and commit the running batch, start nothing new; False when that took too long."""
        deadline = time.monotonic() + timeout_s
        self.begin_stop()
        ended = [stage.join(max(0.0, deadline - time.monotonic())) for stage in self._stages[:-1]]
        self._committer.stop()
        ended.append(self._committer.join(max(0.0, deadline - time.monotonic())))
        if all(ended):
            self._committer.commit_rest()
        return all(ended)

    @property
    def _stages(self) -> tuple[Stage, ...]:
        return self._intake, self._fetch, self._batcher, self._undertaker, self._committer

    def _route(self, jobs: Sequence[Job]) -> None:
        """A job that runs alone is fetched only after its start is counted."""
        self._batcher.ready.put([job for job in jobs if job.isolated])
        self._fetch.take(job for job in jobs if not job.isolated)


def _warm_up_s(predictor: Predictor, model: str) -> float:
    """Seconds that one image took at warm-up; infinite while the process is down."""
    loaded = predictor.loaded.get(model)
    return loaded.predict_ms / 1000 if loaded else math.inf
