"""Memory of a process: Python's garbage collector, and the C library's heap."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from inference.blocking import run_blocking


def freeze_heap() -> None:
    """What is there now stays: let the collector not look through it again.

    A worker has some 300,000 objects of Celery and its like. To look through them took 50 to 75 ms, every few seconds under load,
    and it did nothing else meanwhile.
    """
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Make many objects, none of which is garbage yet, without the collector looking for it; not to be waited in."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def give_memory_back() -> None:
    """Return freed memory to the system, that of unreachable objects too, which may have references to much.

    The C library keeps whatever is below something that is still in use, and once it has freed a block of up to 32 MB it takes
    the next one from there. Other C libraries than glibc are left alone.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        run_blocking(partial(trim, 0))


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
