"""SavedModels: a graph and its weights in a folder, in TensorFlow's serving format.

Such a graph is a program. Operations that are known to reach files, other hosts or Python are refused (`graph_operations`), but a
model's place must be allowed too (`model_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2  # type: ignore[import-untyped]

from inference.errors import ConfigurationError, shown
from inference.models.loading.tensorflow.graph_operations import check_function, check_saved_model

SIGNATURE = "serving_default"
_GRAPH_FILE = "saved_model.pb"
_ASSETS = "assets"


class Signature:
    """Signature of a SavedModel as a function of one tensor."""

    def __init__(self, model: Any, function: Any) -> None:
        self._model = model  # keeps its weights alive
        self._function = function
        self._inputs: dict[str, tf.TensorSpec] = function.structured_input_signature[1]

    @property
    def function(self) -> Any:
        """The concrete function of TensorFlow."""
        return self._function

    @property
    def input_shapes(self) -> Sequence[tuple[int | None, ...]]:
        return [tuple(spec.shape) if spec.shape.rank is not None else () for spec in self._inputs.values()]

    def __call__(self, images: tf.Tensor) -> Any:
        ((name, spec),) = self._inputs.items()
        return self._function(**{name: tf.cast(images, spec.dtype)})


def read_signature(folder: Path) -> Signature:
    """Read the `serving_default` signature of the SavedModel in `folder` or its only subfolder. Raises ConfigurationError."""
    root = _root(folder)
    described = saved_model_pb2.SavedModel.FromString((root / _GRAPH_FILE).read_bytes())
    _check_assets(root, described)
    check_saved_model(described)
    model = tf.saved_model.load(str(root))
    if SIGNATURE not in model.signatures:
        others = ", ".join(model.signatures) or "none"
        raise ConfigurationError(f"has no signature {SIGNATURE}, which is needed to serve it (it has {others})")
    function = model.signatures[SIGNATURE]
    check_function(function)
    return Signature(model, function)


def _root(folder: Path) -> Path:
    """Find the folder of the graph; an archive often has everything in one subfolder."""
    inside = list(folder.iterdir())
    root = inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
    if not (root / _GRAPH_FILE).is_file():
        raise ConfigurationError(f"is not a SavedModel, which has a {_GRAPH_FILE}")
    return root


def _check_assets(root: Path, described: Any) -> None:
    """Raise ConfigurationError if the graph names an asset that is not a file of the folder."""
    for name in {asset.filename for graph in described.meta_graphs for asset in graph.asset_file_def}:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not (root / _ASSETS / name).is_file():
            raise ConfigurationError(f"names an asset that is not a file in its folder {_ASSETS}: {shown(name)}")
