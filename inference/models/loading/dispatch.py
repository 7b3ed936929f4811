"""Selection of the code that loads a model; each library is imported only if a model needs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from inference.errors import ConfigurationError
from inference.models.loading.device import CPU, Device
from inference.models.loading.formats import litert_path, onnx_path
from inference.models.loading.graph_files import load_graph_file
from inference.models.loading.model import LoadedModel
from inference.models.predictor.device_lock import GpuLock
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings


def load_model(spec: ModelSpec, device: Device = CPU) -> LoadedModel:
    """Load the files of `spec` and check that the model fits its description.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    if (path := onnx_path(spec)) is not None:
        return _load_onnx(spec, path)
    if (path := litert_path(spec)) is not None:
        return _load_litert(spec, path)
    from inference.models.loading.tensorflow import graph  # noqa: PLC0415 imports TensorFlow

    return graph.load_model(spec, device)


def open_devices(wanted: Collection[str | None], options: GpuSettings, locks: Mapping[int, GpuLock]) -> dict[str | None, Device]:
    """Open a device for each of `wanted` (a description's `device`): see `tensorflow.devices.open_devices`."""
    from inference.models.loading.tensorflow import devices  # noqa: PLC0415 imports TensorFlow

    return devices.open_devices(wanted, options, locks)


def _load_onnx(spec: ModelSpec, path: Path) -> LoadedModel:
    with _needs("onnxruntime", "onnx", spec):
        from inference.models.loading.onnx_files import OnnxFile  # noqa: PLC0415 imports onnxruntime

    has_folder = path != spec.local_files["file"].path
    return load_graph_file(spec, path, partial(OnnxFile.open, has_folder=has_folder))


def _load_litert(spec: ModelSpec, path: Path) -> LoadedModel:
    with _needs("ai_edge_litert", "litert", spec):
        from inference.models.loading.litert_files import LiteFile  # noqa: PLC0415 imports LiteRT

    return load_graph_file(spec, path, LiteFile.open)


@contextmanager
def _needs(package: str, extra: str, spec: ModelSpec) -> Iterator[None]:
    """Raise ConfigurationError with the command that installs `package` if the block does not find it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ConfigurationError(
            f"{spec.name}: {spec.local_files['file'].location} needs {package}, which is not installed:"
            f' pip install "rohe-inference-service[{extra}]"',
            field="file",
        ) from error
