"""A record store that a test may take down and bring back."""

from __future__ import annotations

import functools
from typing import Any

from inference.errors import ServiceUnavailable
from inference.task_store import TaskStore


class FailingStore:
    """The real store, whose every method raises ServiceUnavailable while `available` is False.

    Attributes:
        refusals: calls that found it down.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self.available = True
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if not self.available:
                self.refusals += 1
                raise ServiceUnavailable("the task store does not answer", retry_after_s=1)
            return method(*arguments, **options)

        return call
