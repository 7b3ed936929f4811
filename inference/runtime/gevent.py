"""Calls that would block gevent's event loop: file access and long calculations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def runs_under_gevent() -> bool:
    """Whether gevent has replaced threads by greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def run_blocking(call: Callable[[], R]) -> R:
    """Run `call`; under gevent on a thread of the operating system, so that the other greenlets continue."""
    if not runs_under_gevent():
        return call()
    from gevent import get_hub  # noqa: PLC0415 imported only if it is in use

    answer, error = get_hub().threadpool.apply(_caught, (call,))
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return] # gevent has no types


def yield_to_other_greenlets() -> None:
    """Yield to the other greenlets, if there are any; for the pauses of a long calculation."""
    if runs_under_gevent():
        from gevent import sleep  # noqa: PLC0415 imported only if it is in use

        sleep(0)


def _caught(call: Callable[[], R]) -> tuple[R | None, Exception | None]:
    """Return the answer or the error: gevent would print a failed call of its pool with all arguments, images included."""
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 the caller raises it again
        return None, error
