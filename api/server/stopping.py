"""Whether this API is about to end: gunicorn's main process is told, and its workers answer differently from then on."""

from __future__ import annotations

import mmap


class SharedFlag:
    """Something that is false until one process sets it, and true in all that were forked from its maker then."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    @property
    def is_set(self) -> bool:
        return self._memory[0] == 1
