"""Calls that no event loop can wait for: files."""

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

    answer: R = get_hub().threadpool.apply(call)
    return answer
