"""Instruments of the worker. Importing this module registers them: the other parts do not import it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from inference.metrics.registry import BATCH_SIZE_BUCKETS, DURATION_BUCKETS, INSTRUMENTS

images = Counter(
    "inference_images_total", "Tasks that this worker ended, by their outcome.", ("model", "outcome"), registry=INSTRUMENTS
)
stage_duration = Histogram(
    "inference_stage_duration_seconds",
    "Time that an image took in a stage; of commit: time that a batch took.",
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
