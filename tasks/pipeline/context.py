"""Parts that all stages of one model share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.metrics.worker import ModelInstruments
from inference.models.spec import ModelSpec
from inference.task_store.stores import WorkerStore
from tasks.pipeline.batch_times import BatchTimes
from tasks.pipeline.clock import StoreClock
from tasks.pipeline.jobs import HeldJobs

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer


@dataclass(frozen=True)
class StageContext:
    """Parts that all stages of one model share.

    Attributes:
        holder: name of this worker in leases and outcomes.
        held: jobs that this worker holds, of all models.
        times: how long batches of the model took lately.
        tracer: None while traces are off.
    """

    spec: ModelSpec
    store: WorkerStore
    holder: str
    held: HeldJobs
    clock: StoreClock
    times: BatchTimes
    instruments: ModelInstruments
    tracer: Tracer | None
