"""Locks that give each GPU of a host to one worker: a second predictor would lack memory, or compete with the first.

On a host with GPUs the worker opens a lock file for each GPU that its models may use, and its predictor processes inherit the
open file. The lock belongs to that open file: if one of these processes takes it, all of them have it, and it is released when
the last of them has ended. So a worker can load a new model while the old one runs, and a predictor that outlives its worker
still excludes other workers. The file itself remains, and every user of the host can lock it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inference.errors import ConfigurationError

#: Seconds to wait for the end of an earlier worker.
HANDOVER_TIMEOUT_S = 10.0
_INTERVAL_S = 0.1
_MAX_PID_DIGITS = 20


def gpu_index(device: str | None) -> int | None:
    """Find the index of the GPU that a description's `device` names: None is the CPU; no device is the first GPU."""
    if device == "cpu":
        return None
    return int((device or "gpu").partition(":")[2] or 0)


@dataclass(frozen=True)
class GpuLock:
    #: name of the GPU in errors
    gpu: str
    #: descriptor of the open lock file
    descriptor: int

    def hold(self, timeout_s: float = HANDOVER_TIMEOUT_S) -> None:
        """Take the lock. Raises ConfigurationError if another worker still has it after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not self._try():
            if time.monotonic() > deadline:
                holder = os.pread(self.descriptor, _MAX_PID_DIGITS, 0).decode() or "unknown"
                raise ConfigurationError(
                    f"GPU {self.gpu} is in use by another worker (its predictor is process {holder}). Each GPU serves one worker:"
                    " choose another GPU with the model's device, or with CUDA_VISIBLE_DEVICES",
                    field="device",
                )
            time.sleep(_INTERVAL_S)
        with suppress(OSError):  # a file of another user is read-only
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def gpu_lock(index: int, folder: Path | None) -> GpuLock:
    """Open the lock of the GPU with TensorFlow's number `index`, without taking it; repeated calls return the same open file.

    Args:
        folder: folder of the lock files; None is the folder for temporary files.

    Raises:
        ConfigurationError: the lock file cannot be opened.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpu = visible[index].strip() if index < len(visible) and visible[index] else str(index)
    return _lock(gpu, folder or Path(tempfile.gettempdir()))


def host_has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this process may have a GPU, as far as can be determined without TensorFlow.

    Args:
        devices: folder of the device nodes: NVIDIA's, WSL's, AMD's.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and (not visible.strip() or visible.strip().startswith(("-1", "NoDevFiles"))):
        return False
    nodes = (devices / "dxg", devices / "kfd")
    return sys.platform != "linux" or any(devices.glob("nvidia[0-9]*")) or any(node.exists() for node in nodes)


@cache
def _lock(gpu: str, folder: Path) -> GpuLock:
    file = folder / f"inference-gpu-{re.sub(r'[^A-Za-z0-9._-]', '_', gpu)}.lock"
    try:
        return GpuLock(gpu, _open(file))
    except OSError as error:
        public = "gpu.lock_dir: a file there cannot be opened"
        detail = f"gpu.lock_dir: cannot open {file}: {error.strerror}"
        raise ConfigurationError(detail, public=public, field="gpu.lock_dir") from error


def _open(file: Path) -> int:
    """Open the lock file; create it for every user of the host if it is missing.

    The folder may be shared: if it has the sticky bit, Linux refuses to open another user's file with O_CREAT
    (`fs.protected_regular`), and a link or a pipe that another user created must not be followed or waited for. A read-only
    file can be locked too.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileExistsError):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
        os.fchmod(descriptor, 0o666)  # independent of the umask
        return descriptor
    try:
        descriptor = os.open(file, os.O_RDWR | flags)
    except PermissionError:
        descriptor = os.open(file, os.O_RDONLY | flags)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file of this service")
    return descriptor
