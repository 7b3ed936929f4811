"""Facts about a Keras model from its configuration, the JSON in its file. Imports neither Keras nor TensorFlow."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from inference.errors import ConfigurationError
from inference.models.archives import ModelFileLimits, check_archive, read_member
from inference.models.hdf5 import check_h5
from inference.models.inspection.facts import FileFormat, ModelFacts, Size
from inference.models.inspection.keras_layers import Layer, find_outputs, find_scaling, layers_of

_CONFIG = "config.json"
#: Limit of a model's configuration; a network of a thousand layers needs one MB.
_MAX_CONFIG_BYTES = 2**25
_SHAPE_KEYS = ("batch_shape", "batch_input_shape")


def read_keras(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Read a `.keras` file. Raises ConfigurationError."""
    if not zipfile.is_zipfile(path):
        raise ConfigurationError("is not a Keras 3 file, which is a zip archive, or is damaged")
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, limits)
        text = read_member(archive, _CONFIG, max_bytes=_MAX_CONFIG_BYTES)
    return _facts(json.loads(text), FileFormat.KERAS)


def read_h5(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Read a whole model in H5, of Keras 2 or 3. Raises ConfigurationError, OSError, ValueError."""
    if not h5py.is_hdf5(path):
        raise ConfigurationError("is not an H5 file")
    with h5py.File(path) as file:
        check_h5(file, limits)
        text = file.attrs.get("model_config")
    if text is None:
        raise ConfigurationError("has only weights; describe it in a model.yaml with architecture_file and weights_file")
    if len(text) > _MAX_CONFIG_BYTES:
        raise ConfigurationError(f"has a model_config of more than {_MAX_CONFIG_BYTES} bytes")
    return _facts(json.loads(text), FileFormat.H5)


def _facts(config: Any, file_format: FileFormat) -> ModelFacts:
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise ConfigurationError("has a configuration that is not that of a Keras model")
    model = Layer.read(config)
    shapes, dtype = _inputs(model)
    return ModelFacts(
        format=file_format,
        input_shapes=shapes,
        input_dtype=dtype,
        outputs=find_outputs(model),
        scaling=find_scaling(model),
    )


def _inputs(model: Layer) -> tuple[tuple[tuple[Size, ...], ...], str]:
    """Find the shape of each input and the type of the first. Raises ConfigurationError if the file has no shape."""
    layers = layers_of(model)
    inputs = [layer for layer in layers if layer.kind == "InputLayer"] or [layer for layer in layers[:1] if _shape(layer)]
    if inputs and all(_shape(layer) for layer in inputs):
        dtype = inputs[0].config.get("dtype")
        return tuple(_shape(layer) or () for layer in inputs), dtype if isinstance(dtype, str) else "float32"
    shape = model.config.get("build_input_shape") or model.build_shape
    if not layers or not isinstance(shape, list):
        if layers and layers_of(layers[0]):
            return _inputs(layers[0])
        raise ConfigurationError("does not say the shape of its input; begin it with a keras.Input, or write a model.yaml")
    return (tuple(shape),), "float32"


def _shape(layer: Layer) -> tuple[Size, ...] | None:
    found = next((layer.config[key] for key in _SHAPE_KEYS if isinstance(layer.config.get(key), list)), None)
    return None if found is None else tuple(size if isinstance(size, int) else None for size in found)
