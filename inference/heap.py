"""What a process that is ready to serve does about Python's garbage collector."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """What is there now stays: let the collector not look through it again.

    A worker has some 300,000 objects of Celery and its like. To look through them took 50 to 75 ms, every few seconds under load,
    and it did nothing else meanwhile.
    """
    gc.collect()
    gc.freeze()
