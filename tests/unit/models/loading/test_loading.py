"""Loading a Keras file: what fits the description is run, what does not is refused in one sentence."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import load_model, warm_up
from inference.models.spec import ModelSpec

REPOSITORY = Path(__file__).parents[4]
SHAPE = (4, 6, 3)
CLASSES = 5


def classifier(shape: tuple[int | None, ...] = SHAPE, *, batch: int | None = None, dtype: str = "float32") -> keras.Model:
    inputs = keras.Input(shape, batch_size=batch, dtype=dtype)
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(pooled))


def describe(folder: Path, *, dtype: str = "float32", labels: int | None = None, file: str = "m.keras") -> ModelSpec:
    named = [f"class {n}" for n in range(labels or 0)]
    return spec_of(folder, name="tiny", file=file, labels=named, input={"shape": SHAPE, "dtype": dtype})


def refusal(spec: ModelSpec) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_model(spec)
    assert caught.value.detail.startswith("tiny: ")
    assert "\n" not in caught.value.detail
    assert "\x1b" not in caught.value.detail
    return caught.value


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("graph_dtype", ["uint8", "float32"])
def test_a_batch_is_answered_in_order_with_one_row_per_image(tmp_path: Path, dtype: str, graph_dtype: str) -> None:
    original = classifier(dtype=graph_dtype)
    original.save(tmp_path / "m.keras")
    model = load_model(describe(tmp_path, dtype=dtype, labels=CLASSES))
    images = np.random.default_rng(1).integers(0, 256, (7, *SHAPE)).astype(dtype)
    predictions = model.predict(images)
    assert model.output_size == CLASSES
    assert predictions.shape == (7, CLASSES)
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, np.asarray(original(images)), atol=1e-6)


def test_every_batch_size_has_the_same_answers_after_warming_up(tmp_path: Path) -> None:
    classifier().save(tmp_path / "m.keras")
    spec = describe(tmp_path)
    model = load_model(spec)
    warm_up(model, spec, (1, 4))
    images = np.random.default_rng(2).random((5, *SHAPE), dtype=np.float32)
    one_by_one = np.concatenate([model.predict(images[n : n + 1]) for n in range(5)])
    np.testing.assert_allclose(model.predict(images), one_by_one, atol=1e-6)


def test_a_model_for_any_height_and_width_fits(tmp_path: Path) -> None:
    classifier((None, None, 3)).save(tmp_path / "m.keras")
    assert load_model(describe(tmp_path)).output_size == CLASSES


def test_half_precision_is_answered_in_float32(tmp_path: Path) -> None:
    inputs = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(CLASSES, activation="softmax", dtype="mixed_float16")(flat)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    assert load_model(describe(tmp_path)).predict(np.ones((2, *SHAPE), np.float32)).dtype == np.float32


def test_layers_for_training_only_are_off(tmp_path: Path) -> None:
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.9), keras.layers.Softmax()]
    keras.Sequential([keras.Input(SHAPE), *layers]).save(tmp_path / "m.keras")
    images = np.random.default_rng(3).random((3, *SHAPE), np.float32)
    exponentials = np.exp(images.reshape(3, -1))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(load_model(describe(tmp_path)).predict(images), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 1)])
def test_another_input_shape_is_refused_with_both_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    classifier(shape).save(tmp_path / "m.keras")
    error = refusal(describe(tmp_path))
    assert error.field == "input.shape"
    assert str(list(SHAPE)) in error.detail
    assert str(list(shape)) in error.detail


def test_an_input_that_is_no_image_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((72,)), keras.layers.Dense(CLASSES)]).save(tmp_path / "m.keras")
    assert "takes 2 dimensions, [None, 72], expected 4" in refusal(describe(tmp_path)).detail


@pytest.mark.parametrize("litert", [True, False])
@pytest.mark.parametrize("size", [1, 4])
def test_a_model_with_a_fixed_batch_size_answers_any_number_of_images(tmp_path: Path, size: int, litert: bool) -> None:
    fixed = classifier(batch=size)
    fixed.save(tmp_path / "m.keras")
    images = np.random.default_rng(0).random((5, *SHAPE), np.float32)
    spec = spec_of(tmp_path, name="tiny", file="m.keras", litert=litert, input={"shape": SHAPE, "dtype": "float32"})
    model = load_model(spec)
    expected = np.concatenate([fixed(np.repeat(image[None], size, axis=0))[:1] for image in images])
    for count in (1, 4, 5):
        np.testing.assert_allclose(model.predict(images[:count]), expected[:count], rtol=0, atol=1e-6)


def two_heads(*, named: bool) -> keras.Model:
    inputs = keras.Input(SHAPE)
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    species = keras.layers.Dense(CLASSES, activation="softmax", name="species")(pooled)
    colour = keras.layers.Dense(2, activation="softmax", name="colour")(pooled)
    return keras.Model(inputs, {"which": species, "hue": colour} if named else [species, colour])


@pytest.mark.parametrize("named", [True, False], ids=["mapping", "list"])
@pytest.mark.parametrize("form", ["m.keras", "saved"])
class TestSeveralOutputs:
    def save(self, folder: Path, form: str, *, named: bool) -> keras.Model:
        keras.utils.set_random_seed(1)
        model = two_heads(named=named)
        if form == "saved":
            model.export(folder / form, format="tf_saved_model", verbose=False)
        else:
            model.save(folder / form)
        return model

    def test_the_named_one_is_answered(self, tmp_path: Path, form: str, named: bool) -> None:
        model = self.save(tmp_path, form, named=named)
        names = {"m.keras": ("species", "colour"), "saved": ("output_0", "output_1")}[form]
        names = ("which", "hue") if named else names
        images = np.random.default_rng(0).random((3, *SHAPE), np.float32)
        expected = list(model(images).values()) if named else model(images)
        if named:
            expected = [model(images)[name] for name in names]
        for name, values in zip(names, expected, strict=True):
            spec = spec_of(tmp_path, name="tiny", file=form, output={"name": name}, input={"shape": SHAPE, "dtype": "float32"})
            np.testing.assert_allclose(load_model(spec).predict(images), values, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("output", [{}, {"name": "nothing"}])
    def test_without_a_right_name_the_error_lists_them(
        self, tmp_path: Path, form: str, named: bool, output: dict[str, str]
    ) -> None:
        self.save(tmp_path, form, named=named)
        error = refusal(spec_of(tmp_path, name="tiny", file=form, output=output, input={"shape": SHAPE, "dtype": "float32"}))
        assert error.field == "output.name"
        listed = "hue, which" if named else "output_0, output_1" if form == "saved" else "species, colour"
        assert f"{listed}; set output.name to the one with the classes" in error.detail


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    inputs = [keras.Input(SHAPE), keras.Input(SHAPE)]
    outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(keras.layers.Add()(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    assert "has 2 inputs, expected 1" in refusal(describe(tmp_path)).detail


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    inputs = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(inputs)
    keras.Model(inputs, [keras.layers.Dense(2)(flat), keras.layers.Dense(3)(flat)]).save(tmp_path / "m.keras")
    assert "has 2 outputs: " in refusal(describe(tmp_path)).detail


def test_an_output_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 1)]).save(tmp_path / "m.keras")
    assert "it returned (2, 4, 6, 2)" in refusal(describe(tmp_path)).detail


def test_an_output_that_mixes_images_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input(SHAPE)
    outputs = keras.ops.mean(keras.layers.Flatten()(inputs), axis=0, keepdims=True)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    assert "for 2 images it returned (1, 72)" in refusal(describe(tmp_path)).detail


def test_a_model_that_fails_on_the_described_images_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 5)]).save(tmp_path / "m.keras")
    assert "fails on images of shape [4, 6, 3]: Negative dimension size" in refusal(describe(tmp_path)).detail


@pytest.mark.parametrize("labels", [1, CLASSES - 1, CLASSES + 1])
def test_another_number_of_labels_is_refused_with_both_numbers(tmp_path: Path, labels: int) -> None:
    classifier().save(tmp_path / "m.keras")
    error = refusal(describe(tmp_path, labels=labels))
    assert error.field == "labels"
    assert f"there are {labels} labels" in error.detail
    assert f"has {CLASSES} classes" in error.detail


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("m.keras", "tiny: m.keras is not a Keras 3 file, which is a zip archive, or is damaged"),
        ("m.h5", "tiny: cannot read m.h5: Unable to synchronously open file (file signature not found)"),
        ("m.pt", "tiny: m.pt must be a *.keras, *.h5, *.tflite or *.onnx file, a SavedModel's folder or a .zip of one"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / file).write_bytes(b"not a model")
    error = refusal(describe(tmp_path, file=file))
    assert (error.field, error.detail) == ("file", says)


def test_a_damaged_keras_file_is_refused(tmp_path: Path) -> None:
    classifier().save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "m.keras", "w") as damaged:
        for name in ("metadata.json", "config.json"):
            damaged.writestr(name, whole.read(name))
    error = refusal(describe(tmp_path))
    assert error.field == "file"
    assert "cannot read m.keras: " in error.detail


def test_code_inside_a_model_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input(SHAPE), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert b"__lambda__" in archive.read("config.json")
    assert "m.keras has code or files of its own, which is refused: Lambda" in refusal(describe(tmp_path)).detail


def test_the_backend_is_tensorflow_whatever_the_environment_says() -> None:
    code = "import inference.models.loading.tensorflow, keras; print(keras.backend.backend())"
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "tensorflow"
