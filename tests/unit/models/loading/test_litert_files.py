"""LiteRT files: the service answers what LiteRT itself answers, also for quantised graphs, and says what is wrong with others."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import LoadedModel, load_model
from inference.models.loading.fixed_batches import FixedBatches
from inference.models.loading.litert_files import Quantisation
from inference.models.spec import ModelSpec

SHAPE = (8, 6, 3)
CLASSES = 4
#: between a batch and its images one by one: the order of sums
TOLERANCE = 1e-6
#: step of LiteRT's quantised softmax
STEP = 1 / 256
PIXELS = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
FLOATS = {"shape": SHAPE, "dtype": "float32"}


def classifier(*, batch: int | None = None, reshapes: bool = False, scale: float = 1 / 255) -> keras.Model:
    """A small model; with `reshapes`, its graph has the batch size in the shape of a reshape."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE, batch_size=batch)
    maps = keras.layers.Conv2D(6, 3, activation="relu")(keras.layers.Rescaling(scale)(inputs))
    mixed = keras.layers.Flatten()(maps) if reshapes else keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax", kernel_initializer="random_normal")(mixed))


def converted(model: keras.Model, *, integers: Any = None, outputs: Any = None, high: float = 255) -> bytes:
    """Convert to a `.tflite` file; with `integers`, quantised throughout, for pixel values up to `high`."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integers is not None:
        samples = np.random.default_rng(1).uniform(0, high, (20, 1, *SHAPE)).astype(np.float32)
        samples[0], samples[1] = 0, high
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = integers
        converter.inference_output_type = outputs or integers
    with warnings.catch_warnings(action="ignore"):  # about what a quantised graph is not told
        content: bytes = converter.convert()
    return content


@pytest.fixture(scope="module")
def files() -> Callable[[str], bytes]:
    """Contents of files by name, each converted once."""
    makers: dict[str, Callable[[], bytes]] = {
        "float": lambda: converted(classifier()),
        "fixed 1": lambda: converted(classifier(batch=1)),
        "fixed 4": lambda: converted(classifier(batch=4)),
        "reshape 4": lambda: converted(classifier(batch=4, reshapes=True)),
        "uint8": lambda: converted(classifier(), integers=tf.uint8),
        "int8": lambda: converted(classifier(), integers=tf.int8),
        "int8 0..1": lambda: converted(classifier(scale=1.0), integers=tf.int8, high=1),
        "int8 to float": lambda: converted(classifier(), integers=tf.int8, outputs=tf.float32),
    }
    made: dict[str, bytes] = {}
    return lambda name: made.get(name) or made.setdefault(name, makers[name]())


def describe(folder: Path, content: bytes, **changes: Any) -> ModelSpec:
    (folder / "m.tflite").write_bytes(content)
    return spec_of(folder, **{"name": "net", "file": "m.tflite", "input": FLOATS} | changes)


def refusal(spec: ModelSpec) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_model(spec)
    assert caught.value.detail.startswith("net: ")
    assert "\n" not in caught.value.detail
    return caught.value


def own_answers(content: bytes, images: NDArray[Any]) -> NDArray[Any]:
    """Answers of LiteRT by itself, image by image, in the dtype of the output."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(inputs["index"], np.repeat(image[None], inputs["shape"][0], axis=0))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(outputs["index"])[:1].copy())
    return np.concatenate(answers)


def calls_fixed_batches(model: LoadedModel) -> bool:
    return isinstance(model._function, FixedBatches)


class TestFloats:
    @pytest.mark.parametrize("name", ["float", "fixed 1", "fixed 4", "reshape 4"])
    def test_batches_of_any_size_are_answered_as_image_by_image(
        self, tmp_path: Path, files: Callable[[str], bytes], name: str
    ) -> None:
        images = PIXELS.astype(np.float32)
        expected = own_answers(files(name), images)
        assert np.ptp(expected, axis=0).max() > 100 * TOLERANCE
        model = load_model(describe(tmp_path, files(name)))
        assert (model.runtime, model.output_size) == ("LiteRT", CLASSES)
        for count in (5, 1, 4):
            np.testing.assert_allclose(model.predict(images[:count]), expected[:count], rtol=0, atol=TOLERANCE)

    def test_a_fixed_batch_size_is_changed_only_if_the_graph_allows_it(
        self, tmp_path: Path, files: Callable[[str], bytes]
    ) -> None:
        changed = {
            name: not calls_fixed_batches(load_model(describe(tmp_path, files(name)))) for name in ("fixed 1", "reshape 4")
        }
        assert changed == {"fixed 1": True, "reshape 4": False}

    def test_pixels_go_into_a_graph_of_floats_as_they_are(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        model = load_model(describe(tmp_path, files("float"), input={"shape": SHAPE, "dtype": "uint8"}))
        expected = own_answers(files("float"), PIXELS.astype(np.float32))
        np.testing.assert_allclose(model.predict(PIXELS), expected, rtol=0, atol=TOLERANCE)

    def test_height_and_width_that_are_open_are_those_of_the_description(self, tmp_path: Path) -> None:
        inputs = keras.Input((None, None, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        content = converted(keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(pooled)))
        model = load_model(describe(tmp_path, content, input={"shape": (5, 7, 3), "dtype": "float32"}))
        assert model.predict(np.ones((2, 5, 7, 3), np.float32)).shape == (2, CLASSES)

    def test_the_named_one_of_several_outputs(self, tmp_path: Path) -> None:
        inputs = keras.Input(SHAPE)
        pooled = keras.layers.GlobalAveragePooling2D()(inputs / 255)
        heads = {name: keras.layers.Dense(size, activation="softmax")(pooled) for name, size in {"kind": 4, "hue": 2}.items()}
        both = keras.Model(inputs, heads)
        content, images = converted(both), PIXELS.astype(np.float32)
        for name in heads:
            model = load_model(describe(tmp_path, content, output={"name": name}))
            np.testing.assert_allclose(model.predict(images), both(images)[name], rtol=0, atol=TOLERANCE)
        error = refusal(describe(tmp_path, content))
        assert error.field == "output.name"
        assert "has 2 outputs: " in error.detail
        assert {"kind", "hue"} <= set(re.findall(r"\w+", error.detail))

    def test_one_unit_without_a_sigmoid_is_refused(self, tmp_path: Path) -> None:
        inputs = keras.Input(SHAPE)
        unit = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        content = converted(keras.Model(inputs, unit(keras.layers.GlobalAveragePooling2D()(inputs))))
        assert "may be of any size" in refusal(describe(tmp_path, content)).detail

    def test_one_unit_with_a_sigmoid_is_the_second_of_two_classes(self, tmp_path: Path) -> None:
        inputs = keras.Input(SHAPE)
        unit = keras.layers.Dense(1, activation="sigmoid")
        content = converted(keras.Model(inputs, unit(keras.layers.GlobalAveragePooling2D()(inputs / 255))))
        images = PIXELS.astype(np.float32)
        second = own_answers(content, images)
        answers = load_model(describe(tmp_path, content)).predict(images)
        np.testing.assert_allclose(answers, np.concatenate([1 - second, second], axis=1), rtol=0, atol=TOLERANCE)


class TestQuantised:
    def test_pixels_go_into_a_uint8_graph_as_they_are(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        model = load_model(describe(tmp_path, files("uint8"), input={"shape": SHAPE, "dtype": "uint8"}))
        expected = own_answers(files("uint8"), PIXELS).astype(np.float32) * STEP
        answers = model.predict(PIXELS)
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers, expected, rtol=0, atol=TOLERANCE)

    @pytest.mark.parametrize(("name", "scale"), [("int8", 1), ("int8 0..1", 1 / 255)])
    def test_floats_are_quantised_by_the_scale_of_the_input(
        self, tmp_path: Path, files: Callable[[str], bytes], name: str, scale: float
    ) -> None:
        (tensor,) = Interpreter(model_content=files(name)).get_input_details()
        step, zero = tensor["quantization"]
        integers = np.clip(np.rint(PIXELS * scale / step) + zero, -128, 127).astype(np.int8)
        expected = (own_answers(files(name), integers).astype(np.float32) + 128) * STEP
        model = load_model(describe(tmp_path, files(name), input={**FLOATS, "scale": scale}))
        answers = model.predict((PIXELS * scale).astype(np.float32))
        np.testing.assert_allclose(answers, expected, rtol=0, atol=STEP + TOLERANCE)  # a value half way is rounded up or down
        assert np.mean(answers == expected) > 0.9

    def test_the_answers_are_close_to_those_of_the_float_model(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        images = PIXELS.astype(np.float32)
        for name in ("int8", "int8 to float"):
            answers = load_model(describe(tmp_path, files(name))).predict(images)
            np.testing.assert_allclose(answers, own_answers(files("float"), images), rtol=0, atol=0.03)

    def test_pixels_for_a_graph_of_other_values_are_refused(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        for dtype in ("uint8", "float32"):
            error = refusal(describe(tmp_path, files("int8 0..1"), input={"shape": SHAPE, "dtype": dtype}))
            assert error.field == "input.scale"
            assert "takes int8 for values from 0 to 1 (scale 0.0039" in error.detail
            assert "by the description pixels become 0 to 255: set input.scale" in error.detail

    def test_scaled_values_for_a_graph_of_pixels_are_refused(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        error = refusal(describe(tmp_path, files("int8"), input={**FLOATS, "scale": "0..1"}))
        assert "pixels become 0 to 1: set input.scale" in error.detail

    def test_many_classes_may_sum_to_less_than_one(self, tmp_path: Path) -> None:
        """A softmax in steps of 1/256 rounds a thousand small probabilities down to 0."""
        keras.utils.set_random_seed(1)
        inputs = keras.Input(SHAPE)
        pooled = keras.layers.GlobalAveragePooling2D()(inputs / 255)
        content = converted(keras.Model(inputs, keras.layers.Dense(1000, activation="softmax")(pooled)), integers=tf.uint8)
        answers = load_model(describe(tmp_path, content, input={"shape": SHAPE})).predict(PIXELS)
        assert answers.sum(axis=1).max() < 0.9
        np.testing.assert_array_equal(answers, own_answers(content, PIXELS) * np.float32(STEP))

    def test_quantised_logits_are_refused(self, tmp_path: Path) -> None:
        inputs = keras.Input(SHAPE)
        pooled = keras.layers.GlobalAveragePooling2D()(inputs / 255)
        content = converted(keras.Model(inputs, keras.layers.Dense(CLASSES)(pooled)), integers=tf.uint8)
        assert "must return probabilities" in refusal(describe(tmp_path, content, input={"shape": SHAPE})).detail

    def test_values_out_of_range_become_the_smallest_or_the_largest(self) -> None:
        quantisation = Quantisation(np.dtype(np.int8), 0.5, -10)
        values = np.array([-1e9, 0.0, 0.26, 1.0, 1e9], np.float32)
        assert quantisation.quantise(values).tolist() == [-128, -10, -9, -8, 127]
        assert quantisation.dequantise(np.array([-10, -8], np.int8)).tolist() == [0.0, 1.0]


class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"I am no model.\n" * 20, b"\x1c\0\0\0TFL3" + bytes(200)])
    def test_a_file_that_is_no_model(self, tmp_path: Path, content: bytes) -> None:
        assert "net: cannot read m.tflite: " in refusal(describe(tmp_path, content)).detail

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_file_that_ends_too_early(self, tmp_path: Path, files: Callable[[str], bytes], share: float) -> None:
        content = files("float")
        assert "m.tflite" in refusal(describe(tmp_path, content[: int(share * len(content))])).detail

    @pytest.mark.parametrize(
        ("key", "value"),
        [("mixed_precision", True), ("xla", True), ("device", "gpu"), ("litert", False), ("weights_file", "w.h5")],
    )
    def test_keys_that_only_tensorflow_follows(
        self, tmp_path: Path, files: Callable[[str], bytes], key: str, value: object
    ) -> None:
        (tmp_path / "w.h5").write_bytes(b"")
        error = refusal(describe(tmp_path, files("float"), **{key: value}))
        assert error.field == key
        assert ".tflite file" in error.detail

    def test_another_shape(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        error = refusal(describe(tmp_path, files("float"), input={"shape": (5, 5, 3), "dtype": "float32"}))
        assert error.field == "input.shape"
        assert "says input.shape [5, 5, 3], the model in m.tflite takes [8, 6, 3]" in error.detail

    def test_a_number_of_labels_that_is_not_that_of_the_classes(self, tmp_path: Path, files: Callable[[str], bytes]) -> None:
        error = refusal(describe(tmp_path, files("float"), labels=["a", "b"]))
        assert error.field == "labels"
        assert f"there are 2 labels, and the model in m.tflite has {CLASSES} classes" in error.detail


def test_a_damaged_file_is_refused_or_answers_finite_values(tmp_path: Path, files: Callable[[str], bytes]) -> None:
    """LiteRT checks a file before it reads it; bytes of weights may be any, so that some damage changes answers only."""
    chance = random.Random(3)  # noqa: S311 no secret
    refused = 0
    for _ in range(20):
        content = bytearray(files("uint8"))
        for _ in range(30):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            load_model(describe(tmp_path, bytes(content), input={"shape": SHAPE}))
        except ConfigurationError:
            refused += 1
    assert refused > 5
