"""Selection of the device that a model runs on, and of the way a GPU's memory is reserved."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped]

from inference.errors import ConfigurationError
from inference.models.loading.device import CPU, Device
from inference.models.predictor.device_lock import GpuLock, gpu_index
from inference.runtime.cpu import usable_cores
from inference.settings import GpuSettings

logger = logging.getLogger(__name__)


def open_devices(
    wanted: Collection[str | None], options: GpuSettings, locks: Mapping[int, GpuLock], *, config: Any = tf.config
) -> dict[str | None, Device]:
    """Open a device for each of `wanted` (a description's `device`), and lock it if it is a GPU.

    Call it once, before TensorFlow computes. Other GPUs are hidden, because TensorFlow would take their memory too. On a host
    without a GPU, the CPU replaces a wanted GPU, with a warning.

    Args:
        locks: the locks of all GPUs that may be wanted, by index.

    Raises:
        ConfigurationError: the host has GPUs, but not this one, or another worker uses it.
    """
    gpus: Sequence[Any] = config.list_physical_devices("GPU")
    indices = {device: _index(device, len(gpus)) for device in wanted}
    used = sorted({index for index in indices.values() if index is not None})
    for index in used:
        if index in locks:  # absent if the GPU's device node has an unknown name
            locks[index].hold()
    config.set_visible_devices([gpus[index] for index in used], "GPU")
    if not used:
        _set_threads(config)
    for index in used:
        _limit_memory(gpus[index], options, config)
    return {
        device: CPU if index is None else Device(f"/GPU:{used.index(index)}", is_gpu=True) for device, index in indices.items()
    }


def _index(device: str | None, gpus: int) -> int | None:
    """Find the index of the GPU; None is the CPU."""
    index = gpu_index(device)
    if index is None:
        return None
    if gpus == 0:
        if device is not None:
            logger.warning("device %s: TensorFlow finds no GPU here; the model runs on the CPU", device)
        return None
    if index >= gpus:
        raise ConfigurationError(f"device {device}: TensorFlow finds {gpus} GPUs here, counted from 0", field="device")
    return index


def _set_threads(config: Any) -> None:
    """Give all cores to one call, since one call runs at a time; each switch to another thread costs CPU time."""
    config.threading.set_intra_op_parallelism_threads(usable_cores())
    config.threading.set_inter_op_parallelism_threads(1)


def _limit_memory(gpu: Any, options: GpuSettings, config: Any) -> None:
    if options.memory_limit_mb is not None:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=options.memory_limit_mb)
        config.set_logical_device_configuration(gpu, [limit])
    else:
        config.experimental.set_memory_growth(gpu, options.memory_growth)
