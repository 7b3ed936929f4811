"""One worker for each GPU of a host: a second predictor would find its memory taken, or take turns with the first.

The worker opens a lock file for each GPU that its models may want, and its predictor processes inherit the open file. The lock
belongs to that open file: whichever of these processes takes it, the others have it too, and it goes when the last of them has
ended. So a worker may load a new model beside the old one, while a predictor that outlives its worker still keeps others away.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inference.errors import ConfigurationError

#: Seconds that the end of an earlier worker may take.
HANDOVER_TIMEOUT_S = 10.0
_INTERVAL_S = 0.1
_MAX_PID_DIGITS = 20


def gpu_index(device: str | None) -> int | None:
    """The GPU that a description's `device` names, None for the CPU. No device at all is the first GPU."""
    if device == "cpu":
        return None
    return int((device or "gpu").partition(":")[2] or 0)


@dataclass(frozen=True)
class GpuLock:
    #: as errors name the GPU
    gpu: str
    #: of the lock file, open to read and write
    descriptor: int

    def hold(self, timeout_s: float = HANDOVER_TIMEOUT_S) -> None:
        """Take the lock. Raises ConfigurationError when another worker has it still."""
        deadline = time.monotonic() + timeout_s
        while not self._try():
            if time.monotonic() > deadline:
                holder = os.pread(self.descriptor, _MAX_PID_DIGITS, 0).decode() or "unknown"
                raise ConfigurationError(
                    f"GPU {self.gpu} is in use by another worker (its predictor is process {holder}). Each GPU has one:"
                    " choose another with the model's device, or with CUDA_VISIBLE_DEVICES",
                    field="device",
                )
            time.sleep(_INTERVAL_S)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def gpu_lock(index: int, folder: Path | None) -> GpuLock:
    """The lock of the GPU that TensorFlow counts as `index`; nobody holds it yet. The same open file each time.

    Args:
        folder: of the lock files; None: the one for temporary files.

    Raises:
        ConfigurationError: the lock file cannot be opened.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpu = visible[index].strip() if index < len(visible) and visible[index] else str(index)
    return _open(gpu, folder or Path(tempfile.gettempdir()))


@cache
def _open(gpu: str, folder: Path) -> GpuLock:
    file = folder / f"inference-gpu-{gpu}.lock"
    try:
        return GpuLock(gpu, os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666))
    except OSError as error:
        raise ConfigurationError(f"gpu.lock_dir: cannot open {file}: {error.strerror}", field="gpu.lock_dir") from error
