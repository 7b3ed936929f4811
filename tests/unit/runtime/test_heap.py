"""A process that is ready lets the collector look only through what comes later."""

from __future__ import annotations

import gc

from inference.runtime.heap import freeze_heap


def test_what_is_there_is_not_looked_through_again() -> None:
    mine = [[] for _ in range(10)]
    freeze_heap()
    try:
        kept = {id(found) for found in gc.get_objects()}
        assert kept.isdisjoint(map(id, mine))
    finally:
        gc.unfreeze()
