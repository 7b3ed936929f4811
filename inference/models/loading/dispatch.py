"""Selection of the code that loads a model; each library is imported only if a model needs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from inference.errors import ConfigurationError
from inference.models.loading.device import CPU, Device
from inference.models.loading.formats import litert_path, onnx_path
from inference.models.loading.graph_files import load_graph_file
from inference.models.loading.model import LoadedModel
from inference.models.loading.trial import check_labels
from inference.models.predictor.device_lock import GpuLock, gpu_index, host_has_gpu
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings

logger = logging.getLogger(__name__)


def load_models(
    specs: Sequence[ModelSpec],
    batch_sizes: Sequence[int],
    gpu: GpuSettings,
    locks: Mapping[int, GpuLock],
    report: Callable[[str], None] = logger.info,
) -> dict[str, LoadedModel]:
    """Load the models of a predictor process, by name. TensorFlow is imported only for models that LiteRT does not run.

    Args:
        batch_sizes: the sizes of the service's batches, ascending, for the measured choice between the libraries.
        locks: see `tensorflow.devices.open_devices`.
        report: gets the text of each step that takes long.

    Raises:
        ConfigurationError: a file cannot be read or is refused, a model does not fit its description, or a GPU cannot be used.
    """
    loaded: dict[str, LoadedModel] = {}
    heavy: dict[str, tuple[ModelSpec, str]] = {}
    for spec in specs:
        found = _load_graph_file(spec) or _load_light(spec, batch_sizes, report)
        if isinstance(found, LoadedModel):
            loaded[spec.name] = found
        else:
            heavy[spec.name] = (spec, found)
    if heavy:
        from inference.models.loading.tensorflow.devices import open_devices  # noqa: PLC0415 imports TensorFlow

        devices = open_devices({spec.device for spec, _ in heavy.values()}, gpu, locks)
        for spec, reason in heavy.values():
            loaded[spec.name] = _load_heavy(spec, devices[spec.device], reason)
    return loaded


def load_model(spec: ModelSpec, device: Device = CPU) -> LoadedModel:
    """Load one model; LiteRT runs one for TensorFlow on a CPU if it can, converted within this process and not measured.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    from_file = _load_graph_file(spec)
    if from_file is not None:
        return from_file
    from inference.models.loading.tensorflow import convert, graph  # noqa: PLC0415 imports TensorFlow

    traced = graph.trace_model(spec, device)
    lite = "" if device.is_gpu or not spec.fits_lite else convert.load_converted(spec, traced)
    return traced.loaded if isinstance(lite, str) else lite


def _load_light(spec: ModelSpec, batch_sizes: Sequence[int], report: Callable[[str], None]) -> LoadedModel | str:
    """Load a model that LiteRT runs; returns the reason if TensorFlow must, empty if nothing was tried."""
    is_for_cpu = gpu_index(spec.device) is None or not host_has_gpu()
    if not spec.fits_lite or not is_for_cpu or spec.conversions_dir is None:
        return ""
    from inference.models.loading.conversions import find_choice, lite_model  # noqa: PLC0415 imports LiteRT

    try:
        choice, graph = find_choice(spec, batch_sizes, spec.conversions_dir, report)
    except OSError as error:  # a second conversion, in this process, might end it too
        logger.warning("%s: %s; it is loaded without a conversion", spec.name, error)
        return "the conversion failed"
    check_labels(spec, choice.output_size, is_binary=choice.is_binary)
    if graph is None:
        return choice.reason
    if spec.device not in {None, "cpu"}:
        logger.warning("device %s: this host has no GPU; the model runs on the CPU", spec.device)
    return lite_model(spec, choice, graph)


def _load_heavy(spec: ModelSpec, device: Device, reason: str) -> LoadedModel:
    """Load a model that TensorFlow runs, for a known reason, or because nothing else was tried."""
    if not reason:
        return load_model(spec, device)
    from inference.models.loading.tensorflow.graph import trace_model  # noqa: PLC0415 imports TensorFlow

    traced = trace_model(spec, device)
    traced.loaded.reason = reason
    return traced.loaded


def _load_graph_file(spec: ModelSpec) -> LoadedModel | None:
    """Load a model that is one graph for LiteRT or onnxruntime; None if it has another format."""
    if (path := onnx_path(spec)) is not None:
        return _load_onnx(spec, path)
    if (path := litert_path(spec)) is not None:
        return _load_litert(spec, path)
    return None


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
