"""Instruments of the API. Importing this module registers them: the other parts do not import it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from inference.errors import ERRORS_BY_CODE
from inference.metrics.registry import DURATION_BUCKETS, INSTRUMENTS

http_requests = Counter(
    "inference_http_requests_total", "Requests that were answered.", ("route", "method", "code"), registry=INSTRUMENTS
)
http_request_duration = Histogram(
    "inference_http_request_duration_seconds",
    "Time from the head of a request to the head of its answer.",
    ("route",),
    buckets=DURATION_BUCKETS,
    registry=INSTRUMENTS,
)
http_requests_in_flight = Gauge(
    "inference_http_requests_in_flight",
    "Requests whose head was read and whose answer is not sent completely.",
    multiprocess_mode="livesum",
    registry=INSTRUMENTS,
)
event_streams = Gauge("inference_event_streams", "Open event streams.", multiprocess_mode="livesum", registry=INSTRUMENTS)
tasks_accepted = Counter("inference_tasks_accepted_total", "Tasks that the API accepted.", ("model",), registry=INSTRUMENTS)
tasks_refused = Counter(
    "inference_tasks_refused_total",
    "Images that the API did not accept, by the code of the error.",
    ("reason",),
    registry=INSTRUMENTS,
)
for _code in ERRORS_BY_CODE:  # a time series that begins with 1 shows no increase
    tasks_refused.labels(_code)
