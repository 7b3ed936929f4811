"""Memory that two processes share, cut into slots of one image each.

A decoder writes an image into a slot once; the predictor process gathers a batch from the slots. The memory has no name and is
passed on as a descriptor, so that nothing is left behind when a process is killed.
"""

from __future__ import annotations

import mmap
import os
import queue
import tempfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inference.models.spec import InputSpec


class SlotArena:
    """`slots` images of `spec`'s shape and dtype, and one more for whoever frees the others.

    Args:
        descriptor: of an arena that another process made; None makes a new one.
    """

    def __init__(self, spec: InputSpec, slots: int, descriptor: int | None = None) -> None:
        size = spec.bytes_per_image * (slots + 1)
        self._file = None
        if descriptor is None:
            self._file = _unnamed_file()
            self._file.truncate(size)
            descriptor = self._file.fileno()
        self.descriptor = descriptor
        self.slots = slots
        #: never handed out: an image that runs alone finds a place though decoded ones fill the rest
        self.reserved_slot = slots
        #: (slots + 1, height, width, channels)
        self.images: NDArray[Any] = np.frombuffer(mmap.mmap(descriptor, size), spec.numpy_dtype).reshape(slots + 1, *spec.shape)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)

    def acquire(self, timeout_s: float) -> int | None:
        """A free slot, or None when there was none in time."""
        try:
            return self._free.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def release(self, slot: int) -> None:
        if slot != self.reserved_slot:
            self._free.put(slot)


def _unnamed_file() -> BinaryIO:
    """A file in memory. Where the system has none, an unlinked temporary file: images may reach the disk there."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("inference-arena", os.MFD_CLOEXEC), "w+b", buffering=0)  # noqa: PTH123 a descriptor
    return tempfile.TemporaryFile(prefix="inference-arena-", buffering=0)


def padded_sizes(max_batch_size: int) -> tuple[int, ...]:
    """The batch sizes that a model is warmed at: powers of two, and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch_size:
        sizes.append(sizes[-1] * 2)
    return (*sizes, max_batch_size) if max_batch_size > 1 else (1,)
