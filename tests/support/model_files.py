"""Small models of images 16x16x3 as people save them, each in its own way."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SHAPE = (16, 16, 3)


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, *SHAPE), np.uint8)


def network(*, first: Any = (), last: Any = (), shape: tuple[int | None, ...] = SHAPE) -> Any:
    """A network that begins and ends in the given layers; by default 3 classes with a softmax."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    body = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([layers.Input(shape), *first, *body, *(last or [layers.Dense(3, activation="softmax")])])


def rescaled(*last: Any) -> Any:
    return network(first=[keras.layers.Rescaling(1 / 255)], last=last)


def save_tflite(model: Any, file: Path, *, is_quantised: bool, integers: Any = tf.uint8) -> None:
    """Save a model; a quantised one takes and gives `integers`."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if is_quantised:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in images(8))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = integers
    with warnings.catch_warnings(action="ignore"):  # the converter's, about its own defaults
        file.write_bytes(converter.convert())


def pack_labels(file: Path, labels: str) -> None:
    """Append the archive of LiteRT's metadata with a label file."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", labels)


def run_tflite(file: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The answer of LiteRT itself to one image, for a file whose input and output are uint8."""
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(taken["index"], image[None])
    interpreter.invoke()
    scale, zero_point = given["quantization"]
    found: NDArray[np.float32] = (interpreter.get_tensor(given["index"])[0].astype(np.float32) - zero_point) * np.float32(scale)
    return found


def run_onnx(file: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The answer of onnxruntime itself to one image, (3, 16, 16)."""
    found: NDArray[np.float32] = onnxruntime.InferenceSession(file).run(None, {"x": image[None]})[0][0]
    return found


def save_onnx(file: Path, *, names: str = "", layout: str = "nchw", has_softmax: bool = True) -> None:
    """A convolution with three classes, as PyTorch exports one."""
    random = np.random.default_rng(0)
    kernel, weights = random.normal(size=(4, 3, 3, 3)), random.normal(size=(4, 3))
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "weights"], ["d" if has_softmax else "y"]),
        *([helper.make_node("Softmax", ["d"], ["y"])] if has_softmax else []),
    ]
    shape = ["n", 3, 16, 16] if layout == "nchw" else ["n", 16, 16, 3]
    if layout == "nhwc":
        nodes[0].input[0] = "t"
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(kernel.astype("f"), "kernel"), numpy_helper.from_array(weights.astype("f"), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, file)
