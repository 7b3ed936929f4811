"""Models of Keras 3 and Keras 2, whole or as architecture and weights.

A file is data: an object at any place in the model that would run its own code or read other files is refused.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras  # type: ignore[import-untyped]
from keras.src.legacy.saving import legacy_h5_format  # type: ignore[import-untyped]

from inference.errors import ConfigurationError, shown
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits, check_archive, read_in_pieces, read_member
from inference.models.hdf5 import check_h5
from inference.models.loading.tensorflow import keras_2

KERAS_SUFFIX = ".keras"
_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
#: Keras reads it if the other one is missing.
_OTHER_WEIGHTS = "model.weights.npz"
#: Limit of a model's configuration; a network of a thousand layers needs one MB.
_MAX_CONFIG_BYTES = 2**25

#: Layers that contain Python code or name files.
_REFUSED = {
    "Lambda",
    "__lambda__",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
}
#: Arguments of layers that may name a file (`StringLookup`, `TextVectorization`); in a saved model they are lists.
_FILES = ("vocabulary", "idf_weights")
#: Modules with functions that load files, fetch URLs or switch Keras' own checks off.
_REFUSED_MODULES = re.compile(
    r"(keras|tf_keras|tensorflow)(\.src)?\.(api\.)?(utils|config|saving|models|datasets|callbacks|export)\b.*"
)
_MODEL_MODULES = re.compile(r"keras(\.src)?\.models(\..*)?")
_MODEL_CLASSES = {"Functional", "Sequential", "Model"}
#: Keras 2's layers that call a TensorFlow function by name.
_FUNCTIONS = {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"}


def read_keras(path: Path, *, limits: ModelFileLimits = DEFAULT_LIMITS) -> keras.Model:
    """Read a `.keras` file. Raises ConfigurationError, and the errors of Keras."""
    if not zipfile.is_zipfile(path):
        raise ConfigurationError("is not a Keras 3 file, which is a zip archive, or is damaged")
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, limits)
        _refuse_code(json.loads(read_member(archive, _CONFIG, max_bytes=_MAX_CONFIG_BYTES)))
        _check_members(archive, limits)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _check_members(archive: zipfile.ZipFile, limits: ModelFileLimits) -> None:
    """Check each member as Keras will read it, and the weights as an H5 file. Raises ConfigurationError, ValueError."""
    if _OTHER_WEIGHTS in archive.namelist():
        raise ConfigurationError(f"has weights in {_OTHER_WEIGHTS}, which is not supported; they belong in {_WEIGHTS}")
    for member in archive.infolist():
        if member.filename == _WEIGHTS:
            with tempfile.TemporaryFile() as weights:
                limits.check_disk(Path(tempfile.gettempdir()), member.file_size, _WEIGHTS)
                weights.writelines(read_in_pieces(archive, member))
                with h5py.File(weights) as file:
                    check_h5(file, limits)
        elif not member.is_dir():
            for _ in read_in_pieces(archive, member):
                pass


def read_h5(path: Path, *, limits: ModelFileLimits = DEFAULT_LIMITS) -> keras.Model:
    """Read a whole model from an H5 file, of Keras 2 or 3. Raises ConfigurationError, and the errors of Keras and h5py."""
    with h5py.File(path) as file:
        check_h5(file, limits)
        if "model_config" not in file.attrs:
            raise ConfigurationError("has only weights; name it weights_file, and add an architecture_file")
        text = file.attrs["model_config"]
        if len(text) > _MAX_CONFIG_BYTES:
            raise ConfigurationError(f"has a model_config of more than {_MAX_CONFIG_BYTES} bytes")
        config = json.loads(text)
        _refuse_code(config)
        model = keras_2.model_of(config)
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)
        return model


def read_architecture(path: Path) -> keras.Model:
    """Create a model from its JSON, of Keras 2 or 3, with initial weights. Raises ConfigurationError, and the errors of Keras."""
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ConfigurationError(f"has more than {_MAX_CONFIG_BYTES} bytes, too many for a model's JSON")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict) or "class_name" not in config:
        raise ConfigurationError("is not a model's JSON, which has class_name and config")
    _refuse_code(config)
    if keras_2.is_keras_2(config):
        model = keras_2.model_of(config)
    else:
        model = keras.saving.deserialize_keras_object(config | {"compile_config": None}, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ConfigurationError(f"describes a {config['class_name']}, which is not a model")
    return model


def read_weights(path: Path, model: keras.Model, *, limits: ModelFileLimits = DEFAULT_LIMITS) -> None:
    """Read weights into `model`: by topology if Keras 2 wrote them, by path if Keras 3 did.

    Raises:
        ConfigurationError: the file is refused, or does not fit the model. Keras and h5py raise other errors.
    """
    with h5py.File(path) as file:
        check_h5(file, limits)
        # the file of a whole model also has them
        group = file.get("model_weights", file)
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            legacy_h5_format.load_weights_from_hdf5_group(group, model)
            return
        found = _count_weights(file)
    _read_keras_3_weights(path, model)
    if found != len(model.weights):  # Keras 3 does not report missing weights
        raise ConfigurationError(f"has {found} weights, and the model has {len(model.weights)}")


def compute_in(policy: str, model: keras.Model) -> None:
    """Set the policy of all layers except the layers of the model's output: probabilities need full precision."""
    last = {id(layer) for layer in _last_layers(model)}
    for layer in model._flatten_layers(include_self=False):  # noqa: SLF001 includes nested layers; Keras has no public way
        if id(layer) not in last:
            layer.dtype_policy = policy


def _last_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for output in keras.tree.flatten(model.outputs):
        layer = output._keras_history.operation  # noqa: SLF001 Keras has no public way from a tensor to its layer
        if isinstance(layer, keras.Model):
            yield layer
            yield from _last_layers(layer)
        else:
            yield layer


def _read_keras_3_weights(path: Path, model: keras.Model) -> None:
    with tempfile.TemporaryDirectory(prefix="inference-weights-") as folder:
        named = Path(folder) / "model.weights.h5"  # Keras recognises the format by the name
        named.symlink_to(path.absolute())
        with warnings.catch_warnings(action="ignore"):  # an error reports the same
            model.load_weights(named)


def _count_weights(file: h5py.File) -> int:
    """Count the weights of the layers in a file of Keras 3; a trained model's file has the optimizer's too."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum(not name.startswith("optimizer/") for name in names)


def _refuse_code(config: Any) -> None:
    """Raise ConfigurationError if a model's configuration contains a refused object at any depth."""
    for found in keras_2.objects_in(config):
        kind, arguments = found.get("class_name"), found.get("config")
        name = arguments.get("name", "") if isinstance(arguments, dict) else ""
        if isinstance(arguments, dict) and any(isinstance(arguments.get(key), str) for key in _FILES):
            raise ConfigurationError(f"has a layer that reads a file, which is refused: {kind} {name}".rstrip())
        if _is_refused_module(found):
            raise ConfigurationError(
                f"has code or files of its own, which is refused: {shown(found.get('module'))} {shown(kind)}"
            )
        if kind in _REFUSED:
            raise ConfigurationError(f"has code or files of its own, which is refused: {kind} {name}".rstrip())
        if kind in _FUNCTIONS:
            raise ConfigurationError(
                f"has a TensorFlow function as a layer ({name}), which Keras 3 does not support; use a SavedModel"
            )


def _is_refused_module(found: Mapping[str, Any]) -> bool:
    """Return whether an object comes from a module that reaches files: models themselves are of `keras.models`."""
    module = str(found.get("module"))
    is_model = _MODEL_MODULES.fullmatch(module) is not None and found.get("class_name") in _MODEL_CLASSES
    return _REFUSED_MODULES.fullmatch(module) is not None and not is_model
