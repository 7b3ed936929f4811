"""Memory of a process: Python's garbage collector, and the C library's heap."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from inference.blocking import run_blocking

#: Options of mallopt(3), which Python has no names for.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK_BYTES = 2 * 2**20
#: At the end of the heap: to return each free page and take it back costs more than a small request.
_KEPT_BYTES = 16 * 2**20


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


def map_large_blocks() -> None:
    """Let the C library take blocks of megabytes from the system, and give each back when it is freed; only glibc does it.

    By itself it keeps up to 64 MB of them for each thread once it has freed one, out of the reach of `give_memory_back`.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_memory_back() -> None:
    """Return freed memory to the system, that of unreachable objects too, which may have references to much.

    The C library keeps whatever is below something that is still in use. Other ones than glibc are left alone.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        run_blocking(partial(trim, 0))


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
