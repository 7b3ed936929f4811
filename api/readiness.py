"""Readiness of the API: whether a request would be served now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from api.server.shutdown_flag import SharedFlag
from api.views.problems import log_detail
from inference.container import Services
from inference.errors import ServiceUnavailable
from inference.runtime.health import OK
from inference.status.collect import fault_of

#: Age up to which a result is given again, seconds.
_MAX_AGE_S = 1.0


class Readiness:
    """Checks of the servers that a request needs; they change nothing.

    Anyone may ask, without a key: the servers are asked at most once a second, by one caller; the others wait for it.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, services: Services, stopping: SharedFlag, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._stopping = stopping
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._results: dict[str, str] = {}
        self._expires_at = 0.0

    def checks(self) -> dict[str, str]:
        """Return the result of each check: `OK` or the problem."""
        if self._stopping.is_set:
            return {"process": "stopping"}
        if self._is_old():
            with self._one_at_a_time:
                if self._is_old():
                    self._results = self._ask()
                    self._expires_at = self._clock() + _MAX_AGE_S
        return self._results

    def _is_old(self) -> bool:
        return self._clock() >= self._expires_at

    def _ask(self) -> dict[str, str]:
        services = self._services
        checks: dict[str, Callable[[], object]] = {
            "task_store": services.store.ping,
            "broker": lambda: services.broker.get_depth(services.runtime_config.now().model().queue),
            "object_store": services.objects.ping,
        }
        if not services.settings.api.ready_without_workers:
            checks["model"] = self._check_model
        return {name: _result(call) for name, call in checks.items()}

    def _check_model(self) -> None:
        """Raise ServiceUnavailable if no worker has the served model loaded."""
        served = self._services.runtime_config.now().default_name
        workers = self._services.presence.workers()
        if not any(model.name == served for worker in workers for model in worker.models):
            raise ServiceUnavailable(f"no worker has {served} loaded ({len(workers)} workers are up)")


def _result(call: Callable[[], object]) -> str:
    """Return `OK`, or the public text of the error that `call` raises."""
    error = fault_of(call)
    if error is None:
        return OK
    log_detail(error)
    return error.public
