"""Instruments of the worker. Importing this module registers them: the other parts do not import it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from inference.domain import Outcome, TaskStatus
from inference.metrics.registry import BATCH_SIZE_BUCKETS, DURATION_BUCKETS, INSTRUMENTS

images = Counter(
    "inference_images_total", "Tasks that this worker ended, by their outcome.", ("model", "outcome"), registry=INSTRUMENTS
)
stage_duration = Histogram(
    "inference_stage_duration_seconds",
    "Time that an image took in a stage; in predict and commit, that a batch took.",
    ("model", "stage"),
    buckets=DURATION_BUCKETS,
    registry=INSTRUMENTS,
)
batch_size = Histogram(
    "inference_batch_size_images",
    "Images of a batch that the predictor ran.",
    ("model",),
    buckets=BATCH_SIZE_BUCKETS,
    registry=INSTRUMENTS,
)
task_attempts = Counter(
    "inference_task_attempts_total", "Starts of tasks, repeated ones included.", ("model",), registry=INSTRUMENTS
)
leases_lost = Counter(
    "inference_leases_lost_total",
    "Tasks that ended elsewhere, or went to another worker, while this worker held them.",
    ("model",),
    registry=INSTRUMENTS,
)
predictor_restarts = Counter(
    "inference_predictor_restarts_total", "Starts of a predictor process after it had died or hung.", registry=INSTRUMENTS
)
tasks_in_flight = Gauge("inference_tasks_in_flight", "Tasks that this worker holds.", registry=INSTRUMENTS)

#: Stages of an image, by their name in the timings of an outcome.
_STAGES = {"queue_ms": "queue", "fetch_ms": "fetch", "decode_ms": "decode", "batch_wait_ms": "batch_wait"}


class ModelInstruments:
    """Instruments of one model: looking them up by their labels for each image would take longer than to count it."""

    def __init__(self, model: str) -> None:
        ends = (TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.EXPIRED)
        self._ended = {status: images.labels(model, status.value) for status in ends}
        self._stages = [(timing, stage_duration.labels(model, stage)) for timing, stage in _STAGES.items()]
        self.canceled = images.labels(model, TaskStatus.CANCELED.value)
        self.dead_letters = images.labels(model, "dead_letter")
        self.predict_duration = stage_duration.labels(model, "predict")
        self.commit_duration = stage_duration.labels(model, "commit")
        self.batch_size = batch_size.labels(model)
        self.attempts = task_attempts.labels(model)
        self.leases_lost = leases_lost.labels(model)

    def note_ends(self, outcomes: Sequence[Outcome]) -> None:
        """Count tasks that were committed, and how long their images took in each stage."""
        for status, count in Tally(outcome.status for outcome in outcomes).items():
            self._ended[status].inc(count)
        for outcome in outcomes:
            for timing, duration in self._stages:
                if timing in outcome.timings:
                    duration.observe(outcome.timings[timing] / 1000)
