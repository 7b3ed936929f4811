"""A predictor process with `.tflite` and `.onnx` models alone: it answers, and has no TensorFlow in its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from support.graph_files import CLASSES, HEIGHT, WIDTH, classifier, save
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorProcess
from inference.models.spec import ModelSpec

pytestmark = pytest.mark.process

SLOTS = 8
TOLERANCE = 1e-6
CONVERT = """
import sys, keras, tensorflow as tf
keras.utils.set_random_seed(1)
pooled = keras.layers.GlobalAveragePooling2D()
layers = [keras.Input((6, 8, 3), batch_size=1), keras.layers.Rescaling(1 / 255), pooled, keras.layers.Dense(4, "softmax")]
open(sys.argv[1], "wb").write(tf.lite.TFLiteConverter.from_keras_model(keras.Sequential(layers)).convert())
"""


@contextmanager
def predictor_of(*specs: ModelSpec) -> Iterator[tuple[PredictorProcess, dict[str, SlotArena]]]:
    arenas = {spec.name: SlotArena(spec.input, SLOTS) for spec in specs}
    for arena in arenas.values():
        arena.images[:] = np.random.default_rng(3).random(arena.images.shape)
    models = {spec.name: (spec, arenas[spec.name]) for spec in specs}
    process = PredictorProcess(models, max_batch_size=SLOTS, predict_timeout_s=10, load_timeout_s=60)
    try:
        yield process, arenas
    finally:
        process.stop()
        for arena in arenas.values():
            assert arena._file is not None
            arena._file.close()


def test_it_answers_and_maps_no_library_of_tensorflow(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CONVERT, tmp_path / "m.tflite"], check=True, capture_output=True)
    path = save(classifier(batch=4), tmp_path)
    shape: dict[str, Any] = {"shape": [HEIGHT, WIDTH, 3], "dtype": "float32"}
    onnx = spec_of(tmp_path, name="onnx", file="m.onnx", input=shape | {"layout": "nchw"})
    lite = spec_of(tmp_path, name="lite", file="m.tflite", input=shape)
    with predictor_of(onnx, lite) as (process, arenas):
        assert process.start(lambda: False)
        assert {name: loaded.runtime for name, loaded in process.loaded.items()} == {"onnx": "ONNX Runtime", "lite": "LiteRT"}
        answers = {name: process.predict(name, [2, 0, 5, 1, 7]).values for name in arenas}
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        images = {name: arena.images[[2, 0, 5, 1, 7]] for name, arena in arenas.items()}
    assert "onnxruntime" in maps
    assert "ai_edge_litert" in maps
    assert not [line for line in maps.splitlines() if "tensorflow/" in line or "libtensorflow" in line]

    session = onnxruntime.InferenceSession(str(path))
    padded = np.concatenate([images["onnx"], np.zeros((3, 3, HEIGHT, WIDTH), np.float32)])
    expected = np.concatenate([session.run(None, {"images": padded[begin : begin + 4]})[0] for begin in (0, 4)])[:5]
    np.testing.assert_allclose(answers["onnx"], expected, rtol=0, atol=TOLERANCE)

    interpreter = Interpreter(model_path=str(tmp_path / "m.tflite"))
    interpreter.allocate_tensors()
    for image, answer in zip(images["lite"], answers["lite"], strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        own = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        assert own.shape == (CLASSES,)
        np.testing.assert_allclose(answer, own, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("file", ["m.tflite", "m.onnx"])
def test_a_file_that_is_no_model_ends_the_start_with_its_name(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("I am no model.\n" * 30)
    spec = spec_of(tmp_path, name="net", file=file, input={"shape": [4, 4, 3]})
    refused = pytest.raises(ConfigurationError, match=f"the model cannot be loaded: net: .*{file}")
    with predictor_of(spec) as (process, _), refused:
        process.start(lambda: False)
