"""Memory that two processes share, divided into slots of one image each.

A decoder writes an image into a slot once; the predictor process collects a batch from the slots. The memory has no name and
is passed as a descriptor, so that no file remains if a process is killed.
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
    """Arena of `slots` images in the shape and dtype of `spec`'s graph, and one reserved slot.

    Args:
        descriptor: that of another process's arena; None creates a new one.
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
        #: never acquired, so that an isolated image has a slot even if decoded images fill all others
        self.reserved_slot = slots
        values: NDArray[Any] = np.frombuffer(mmap.mmap(descriptor, size), spec.numpy_dtype)
        #: (slots + 1, *spec.array_shape)
        self.images = values.reshape(slots + 1, *spec.array_shape)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)

    def acquire(self, timeout_s: float) -> int | None:
        """Wait for a free slot; None if there was none within the timeout."""
        try:
            return self._free.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def release(self, slot: int) -> None:
        if slot != self.reserved_slot:
            self._free.put(slot)

    def close(self) -> None:
        """Close the descriptor: no further process can get it. The memory stays until its last array is gone."""
        if self._file is not None:
            self._file.close()


def _unnamed_file() -> BinaryIO:
    """Create a file in memory, or an unlinked temporary file if the system has none (images may then reach the disk)."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("inference-arena", os.MFD_CLOEXEC), "w+b", buffering=0)  # noqa: PTH123 a descriptor
    return tempfile.TemporaryFile(prefix="inference-arena-", buffering=0)


def padded_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Compute the batch sizes at which a model is warmed up: powers of two, and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch_size:
        sizes.append(sizes[-1] * 2)
    return (*sizes, max_batch_size) if max_batch_size > 1 else (1,)
