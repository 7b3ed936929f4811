"""Small `.onnx` and `.tflite` models for tests, with random weights of a fixed seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CLASSES = 6, 8, 4


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def onnx_model(
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]],
    *,
    batch: int | str = "N",
    size: tuple[int | str, int | str] = (HEIGHT, WIDTH),
    outputs: Mapping[str, Sequence[int | str]],
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
    shape: Sequence[int | str] | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """Build a graph of nodes (type, inputs, outputs, attributes) with an input `images`, (N, C, H, W) unless `shape` is given."""
    graph = helper.make_graph(
        [helper.make_node(kind, list(inputs), list(results), **attributes) for kind, inputs, results, attributes in nodes],
        "classifier",
        [helper.make_tensor_value_info("images", input_type, list(shape or (batch, 3, *size)))],
        [helper.make_tensor_value_info(name, output_type, [batch, *sizes]) for name, sizes in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in (weights or default_weights()).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def default_weights() -> dict[str, NDArray[Any]]:
    return {"kernel": random(5, 3, 3, 3), "dense": random(5, CLASSES)}


#: convolution, mean over height and width, dense layer: from `images` to `logits`
BODY: list[tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]] = [
    ("Conv", ["images", "kernel"], ["maps"], {}),
    ("Relu", ["maps"], ["positive"], {}),
    ("GlobalAveragePool", ["positive"], ["mean"], {}),
    ("Flatten", ["mean"], ["features"], {}),
    ("Gemm", ["features", "dense"], ["logits"], {}),
]
SOFTMAX = ("Softmax", ["logits"], ["probabilities"], {"axis": 1})


def classifier(**options: Any) -> onnx.ModelProto:
    """NCHW graph with a convolution, a dense layer and a softmax."""
    return onnx_model([*BODY, SOFTMAX], **{"outputs": {"probabilities": [CLASSES]}} | options)


def save(model: onnx.ModelProto, folder: Path, name: str = "m.onnx") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
