"""Calls that no event loop can wait for: files, and long calculations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def runs_under_gevent() -> bool:
    """Whether gevent has made greenlets of threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def run_blocking(call: Callable[[], R]) -> R:
    """Run it; where gevent has made greenlets of threads, on a thread of the system, so that the other greenlets go on."""
    if not runs_under_gevent():
        return call()
    from gevent import get_hub  # noqa: PLC0415 only where it is in use

    answer, error = get_hub().threadpool.apply(_caught, (call,))
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return] # gevent has no types


def let_others_go_on() -> None:
    """Between two parts of a long calculation: where there are greenlets, let the others have their turn."""
    if runs_under_gevent():
        from gevent import sleep  # noqa: PLC0415 only where it is in use

        sleep(0)


def _caught(call: Callable[[], R]) -> tuple[R | None, Exception | None]:
    """The answer or the error: gevent prints what fails in its pool with all arguments, the caller's image among them."""
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 raised again where the caller is
        return None, error
