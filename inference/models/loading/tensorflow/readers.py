"""Reading of a model's files of any format to a callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-untyped]
import tensorflow as tf  # type: ignore[import-untyped]

from inference.errors import ConfigurationError
from inference.models.archives import ModelFileLimits
from inference.models.loading.problems import reason
from inference.models.loading.tensorflow import keras_files, saved_model
from inference.models.spec import LocalFile, ModelSpec
from inference.runtime.public_text import with_reason

_H5_SUFFIXES = {".h5", ".hdf5"}


@dataclass(frozen=True)
class ReadModel:
    #: for each input: (batch, height, width, channels), None for any size
    input_shapes: Sequence[tuple[int | None, ...]]
    #: takes a batch of any number type, returns a tensor or nested tensors
    call: Callable[[tf.Tensor], Any]
    #: Keras' names of a list of outputs; empty if they have none
    output_names: Sequence[str] = ()

    @property
    def batch_size(self) -> int | None:
        """Number of images of each batch that the model takes; None for any number."""
        return self.input_shapes[0][0]


def read_model(spec: ModelSpec, *, half_precision: str) -> ReadModel:
    """Read the files of `spec`.

    Args:
        half_precision: Keras' name of the policy for a model with `mixed_precision`.

    Raises:
        ConfigurationError: a file cannot be read, is refused, or does not fit the others; its `field` is the file's key.
    """
    limits = ModelFileLimits(spec.max_unpacked_bytes)
    whole = spec.local_files.get("file")
    if whole is not None and whole.path.is_dir():
        return _read_saved_model(spec)
    if whole is not None:
        model = _attempt(spec, "file", partial(_whole_model_reader(spec, whole), limits=limits))
    else:
        model = _attempt(spec, "architecture_file", keras_files.read_architecture)
    if not model.built:
        _attempt(spec, "file" if whole else "architecture_file", lambda _: model.build((None, *spec.input.array_shape)))
    if "weights_file" in spec.local_files:
        _attempt(spec, "weights_file", lambda path: keras_files.read_weights(path, model, limits=limits))
    if spec.mixed_precision:
        keras_files.compute_in(half_precision, model)
    names = tuple(getattr(model, "output_names", None) or ())
    return ReadModel(_input_shapes(model), lambda images: model(tf.cast(images, tf.float32), training=False), names)


def _whole_model_reader(spec: ModelSpec, file: LocalFile) -> Callable[..., keras.Model]:
    suffix = file.path.suffix.lower()
    if suffix == keras_files.KERAS_SUFFIX:
        return keras_files.read_keras
    if suffix in _H5_SUFFIXES:
        return keras_files.read_h5
    raise ConfigurationError(
        f"{spec.name}: {file.location} must be a *.keras, *.h5, *.tflite or *.onnx file, a SavedModel's folder or a .zip of one",
        field="file",
    )


def _read_saved_model(spec: ModelSpec) -> ReadModel:
    for key in ("weights_file", "mixed_precision"):
        if getattr(spec, key):
            raise ConfigurationError(f"{spec.name}: {key} cannot be used with a SavedModel, which has a fixed graph", field=key)
    signature: saved_model.Signature = _attempt(spec, "file", saved_model.read_signature)
    return ReadModel(signature.input_shapes, signature)


def _attempt(spec: ModelSpec, key: str, read: Callable[[Path], Any]) -> Any:
    file = spec.local_files[key]
    try:
        return read(file.path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.name}: {file.location} {error.detail}", field=key) from error
    except Exception as error:
        sentence = f"{spec.name}: cannot read {file.location}"
        why = reason(error)
        raise ConfigurationError(f"{sentence}: {why}", public=with_reason(sentence, why), field=key) from error


def _input_shapes(model: keras.Model) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
