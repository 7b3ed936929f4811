"""Counts of accepted and refused tasks, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from prometheus_client import Counter

from inference.errors import InferenceError
from inference.metrics.api import tasks_accepted, tasks_refused


def begin_counts(models: Iterable[str]) -> None:
    """Begin the counts of these models with 0."""
    for model in models:
        _accepted(model)


def count_accepted(model: str, tasks: int = 1) -> None:
    """Count tasks of a configured model that were accepted."""
    _accepted(model).inc(tasks)


def count_refused(error: InferenceError, images: int = 1) -> None:
    """Count images that were refused with `error`."""
    tasks_refused.labels(error.code).inc(images)


@cache  # a look-up by label takes longer than to count
def _accepted(model: str) -> Counter:
    return tasks_accepted.labels(model)
