"""Selection of the code that loads a model; each library is imported only if a model needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from inference.models.loading.device import CPU, Device
from inference.models.loading.model import LoadedModel
from inference.models.predictor.device_lock import GpuLock
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings


def load_model(spec: ModelSpec, device: Device = CPU) -> LoadedModel:
    """Load the files of `spec` and check that the model fits its description.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    from inference.models.loading.tensorflow import graph  # noqa: PLC0415 imports TensorFlow

    return graph.load_model(spec, device)


def open_devices(wanted: Collection[str | None], options: GpuSettings, locks: Mapping[int, GpuLock]) -> dict[str | None, Device]:
    """Open a device for each of `wanted` (a description's `device`): see `tensorflow.devices.open_devices`."""
    from inference.models.loading.tensorflow import devices  # noqa: PLC0415 imports TensorFlow

    return devices.open_devices(wanted, options, locks)
