"""Instruments of the relay. Importing this module registers them: the other parts do not import it."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from inference.metrics.registry import DURATION_BUCKETS, INSTRUMENTS

deliveries = Counter(
    "inference_deliveries_total",
    "Results that a sink has confirmed, or refuses for ever.",
    ("sink", "outcome"),
    registry=INSTRUMENTS,
)
delivery_retries = Counter(
    "inference_delivery_retries_total", "Passes over an outbox that failed and are repeated.", ("sink",), registry=INSTRUMENTS
)
delivery_duration = Histogram(
    "inference_delivery_duration_seconds",
    "Time that a sink took to write a batch of results.",
    ("sink",),
    buckets=DURATION_BUCKETS,
    registry=INSTRUMENTS,
)
webhook_deliveries = Counter(
    "inference_webhook_deliveries_total", "Attempts to deliver an event to its webhook.", ("outcome",), registry=INSTRUMENTS
)
webhook_duration = Histogram(
    "inference_webhook_duration_seconds",
    "Time that an attempt to deliver an event took.",
    buckets=DURATION_BUCKETS,
    registry=INSTRUMENTS,
)
for _outcome in ("delivered", "failed", "given_up"):  # a time series that begins with 1 shows no increase
    webhook_deliveries.labels(_outcome)
tasks_expired = Counter(
    "inference_tasks_expired_total", "Tasks that the sweeper ended after their deadline.", registry=INSTRUMENTS
)
tasks_redelivered = Counter(
    "inference_tasks_redelivered_total", "Tasks that the sweeper queued again.", ("reason",), registry=INSTRUMENTS
)
for _reason in ("worker_lost", "message_lost"):
    tasks_redelivered.labels(_reason)
