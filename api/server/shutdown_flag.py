"""Flag with which gunicorn's main process tells its workers that the API is about to end."""

from __future__ import annotations

import mmap


class SharedFlag:
    """Flag shared by the process that created it and all processes forked from it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    @property
    def is_set(self) -> bool:
        return self._memory[0] == 1
