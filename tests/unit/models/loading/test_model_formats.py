"""Models as Keras 2 and 3 write them: equal predictions, and what is wrong with a file is told."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import load_model

KERAS_2 = Path(__file__).parents[3] / "fixtures" / "keras2"
SHAPE = (12, 10, 3)
#: between Keras 2 and Keras 3: the order of sums
TOLERANCE = 1e-6

Files = dict[str, str]


@pytest.fixture(scope="module")
def expected() -> Mapping[str, NDArray[Any]]:
    """Images, and what Keras 2 itself says of them: see make.py there."""
    with np.load(KERAS_2 / "expected.npz") as file:
        return dict(file)


def predict(folder: Path, images: NDArray[Any], **files: Any) -> NDArray[np.float32]:
    spec = spec_of(folder, name="net", input={"shape": SHAPE, "dtype": "uint8"}, **files)
    return load_model(spec).predict(images)


def refusal(folder: Path, **files: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        predict(folder, np.zeros((1, *SHAPE), np.uint8), **files)
    assert caught.value.detail.startswith("net: ")
    assert "\n" not in caught.value.detail
    return caught.value


class TestKeras2:
    @pytest.mark.parametrize("name", ["classifier", "nested"])
    @pytest.mark.parametrize(
        "files",
        [
            {"architecture_file": "NAME.json", "weights_file": "NAME_weights.h5"},
            {"architecture_file": "NAME_tf212.json", "weights_file": "NAME_weights.h5"},
            {"architecture_file": "NAME.json", "weights_file": "NAME.h5"},
            {"file": "NAME.h5"},
        ],
        ids=["json", "older json", "weights of a whole model", "whole model"],
    )
    def test_predictions_are_those_of_keras_2(self, expected: Mapping[str, NDArray[Any]], name: str, files: Files) -> None:
        named = {key: file.replace("NAME", name) for key, file in files.items()}
        predictions = predict(KERAS_2, expected["images"], **named)
        np.testing.assert_allclose(predictions, expected[name], rtol=0, atol=TOLERANCE)

    def test_the_fixtures_tell_images_apart(self, expected: Mapping[str, NDArray[Any]]) -> None:
        """Else equal predictions would say little."""
        for name in ("classifier", "nested"):
            assert np.ptp(expected[name], axis=0).max() > 1000 * TOLERANCE

    def test_names_with_slashes_are_read(self, tmp_path: Path, expected: Mapping[str, NDArray[Any]]) -> None:
        """Layers of tf.keras.applications.DenseNet121 have such names; Keras 3 has none."""
        text = (KERAS_2 / "classifier.json").read_text(encoding="utf-8")
        (tmp_path / "m.json").write_text(text.replace('"conv2d"', '"block1/conv"'), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        predictions = predict(tmp_path, expected["images"], architecture_file="m.json", weights_file="w.h5")
        np.testing.assert_allclose(predictions, expected["classifier"], rtol=0, atol=TOLERANCE)

    def test_weights_may_replace_those_of_a_whole_model(self, tmp_path: Path, expected: Mapping[str, NDArray[Any]]) -> None:
        shutil.copy(KERAS_2 / "classifier.h5", tmp_path / "m.h5")
        with h5py.File(tmp_path / "m.h5", "a") as file:
            dense = file["model_weights"]["dense"]
            kernel = dense[dense.attrs["weight_names"][0]]
            kernel[...] = np.zeros_like(kernel)
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        without = predict(tmp_path, expected["images"], file="m.h5")
        assert not np.allclose(without, expected["classifier"], atol=0.01)
        restored = predict(tmp_path, expected["images"], file="m.h5", weights_file="w.h5")
        np.testing.assert_allclose(restored, expected["classifier"], rtol=0, atol=TOLERANCE)


class TestKeras3:
    @pytest.fixture
    def model(self) -> keras.Model:
        keras.utils.set_random_seed(5)
        inputs = keras.Input(SHAPE)
        features = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(features + 1))
        return keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(pooled))

    @pytest.fixture
    def folder(self, model: keras.Model, tmp_path: Path) -> Path:
        (tmp_path / "m.json").write_text(model.to_json(), encoding="utf-8")
        model.save_weights(tmp_path / "m.weights.h5")
        shutil.copy(tmp_path / "m.weights.h5", tmp_path / "w.h5")
        model.save(tmp_path / "m.keras")
        model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
        with zipfile.ZipFile(tmp_path / "saved.zip", "w") as packed:
            for file in (tmp_path / "saved").rglob("*"):
                packed.write(file, Path("saved") / file.relative_to(tmp_path / "saved"))
        return tmp_path

    @pytest.mark.parametrize(
        "files",
        [
            {"file": "m.keras"},
            {"architecture_file": "m.json", "weights_file": "m.weights.h5"},
            {"architecture_file": "m.json", "weights_file": "w.h5"},
            {"file": "m.keras", "weights_file": "w.h5"},
            {"file": "saved"},
            {"file": "saved.zip"},
        ],
        ids=["keras", "json", "weights by another name", "keras and weights", "SavedModel", "SavedModel in a zip"],
    )
    def test_predictions_are_the_models(
        self,
        model: keras.Model,
        folder: Path,
        files: Files,
        expected: Mapping[str, NDArray[Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(folder)  # the cache of what is unpacked
        images = expected["images"]
        np.testing.assert_allclose(predict(folder, images, **files), np.asarray(model(images)), rtol=0, atol=TOLERANCE)

    def test_weights_of_another_model_are_refused(self, folder: Path) -> None:
        other = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
        other.save_weights(folder / "other.weights.h5")
        error = refusal(folder, architecture_file="m.json", weights_file="other.weights.h5")
        assert error.field == "weights_file"
        assert re.search(r"cannot read other\.weights\.h5: Layer '\w+' expected 2 variables, but received 0", error.detail)

    def test_weights_of_a_model_with_more_layers_are_refused(self, folder: Path) -> None:
        """Keras 3 itself would load them in part."""
        with h5py.File(folder / "w.h5", "a") as file:
            file.copy("layers/dense", "layers/dense_1")
        detail = refusal(folder, architecture_file="m.json", weights_file="w.h5").detail
        assert detail == "net: w.h5 has 10 weights, and the model has 8"

    def test_weights_of_a_trained_model_have_more_than_is_needed(self, model: keras.Model, folder: Path) -> None:
        model.compile("adam", "mse", metrics=["mae"])
        model.fit(np.zeros((2, *SHAPE)), np.zeros((2, 5)), verbose=0)
        model.save_weights(folder / "trained.weights.h5")
        images = np.zeros((1, *SHAPE), np.uint8)
        predictions = predict(folder, images, architecture_file="m.json", weights_file="trained.weights.h5")
        np.testing.assert_allclose(predictions, np.asarray(model(images)), rtol=0, atol=TOLERANCE)

    def test_a_loss_of_ones_own_is_nothing_to_a_service(self, folder: Path, expected: Mapping[str, NDArray[Any]]) -> None:
        document = json.loads((folder / "m.json").read_text(encoding="utf-8"))
        document["compile_config"] = {"loss": {"module": "builtins", "class_name": "function", "config": "my_loss"}}
        (folder / "m.json").write_text(json.dumps(document), encoding="utf-8")
        assert len(predict(folder, expected["images"], architecture_file="m.json", weights_file="w.h5")) == len(
            expected["images"]
        )


class TestSavedModels:
    def test_predictions_are_those_of_keras_2(self, expected: Mapping[str, NDArray[Any]]) -> None:
        predictions = predict(KERAS_2, expected["images"], file="classifier_saved_model")
        np.testing.assert_allclose(predictions, expected["classifier"], rtol=0, atol=TOLERANCE)

    def test_what_is_no_saved_model_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "readme").touch()
        assert refusal(tmp_path, file="saved").detail == "net: saved is not a SavedModel, which has a saved_model.pb"

    def test_a_damaged_graph_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\xff\xff")
        assert "net: cannot read saved: " in refusal(tmp_path, file="saved").detail

    def test_without_the_signature_that_is_served_it_is_refused(self, tmp_path: Path) -> None:
        tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
        assert "has no signature serving_default" in refusal(tmp_path, file="saved").detail

    def test_another_input_is_refused(self, tmp_path: Path) -> None:
        module = tf.Module()
        function = tf.function(lambda images: tf.reduce_mean(images, [1, 2]))
        signature = function.get_concrete_function(tf.TensorSpec((None, 4, 4, 3), tf.float32))
        tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signature)
        error = refusal(tmp_path, file="saved")
        assert error.field == "input.shape"
        assert "takes [4, 4, 3]" in error.detail

    @pytest.mark.parametrize("change", [{"weights_file": "classifier_weights.h5"}, {"mixed_precision": True}])
    def test_a_fixed_graph_takes_no_other_weights_and_no_other_precision(self, change: dict[str, Any]) -> None:
        error = refusal(KERAS_2, file="classifier_saved_model", **change)
        assert (error.field,) == tuple(change)
        assert "cannot be used with a SavedModel" in error.detail


class TestWrongFiles:
    def test_weights_of_another_architecture_are_refused(self) -> None:
        error = refusal(KERAS_2, architecture_file="nested.json", weights_file="classifier_weights.h5")
        assert error.field == "weights_file"
        assert "cannot read classifier_weights.h5: Layer count mismatch" in error.detail

    def test_weights_of_another_shape_are_refused(self, tmp_path: Path) -> None:
        text = (KERAS_2 / "classifier.json").read_text(encoding="utf-8")
        (tmp_path / "m.json").write_text(text.replace('"units": 5', '"units": 6'), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path)
        assert "Shape mismatch" in refusal(tmp_path, architecture_file="m.json", weights_file="classifier_weights.h5").detail

    @pytest.mark.parametrize("key", ["weights_file", "file"])
    def test_a_truncated_h5_is_refused(self, tmp_path: Path, key: str) -> None:
        shutil.copy(KERAS_2 / "classifier.json", tmp_path)
        whole = (KERAS_2 / "classifier.h5").read_bytes()
        (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
        files = {"file": "cut.h5"} if key == "file" else {"architecture_file": "classifier.json", "weights_file": "cut.h5"}
        error = refusal(tmp_path, **files)
        assert error.field == key
        assert "truncated file" in error.detail

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "is not JSON: "),
            ("\xff", "is not JSON: "),
            ("[]", "is not a model's JSON"),
            ("{}", "is not a model's JSON"),
            ('{"class_name": "Sequential", "config": []}', "is not a model's JSON"),
            ('{"class_name": "Dense", "config": {"units": 1}}', "describes a Dense, which is not a model"),
        ],
    )
    def test_what_is_no_architecture_is_refused(self, tmp_path: Path, content: str, says: str) -> None:
        (tmp_path / "m.json").write_text(content, encoding="latin-1")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        error = refusal(tmp_path, architecture_file="m.json", weights_file="w.h5")
        assert error.field == "architecture_file"
        assert f"m.json {says}" in error.detail

    def test_weights_where_a_whole_model_belongs_are_refused(self) -> None:
        detail = refusal(KERAS_2, file="classifier_weights.h5").detail
        assert "classifier_weights.h5 has only weights; name it weights_file, and add an architecture_file" in detail

    def test_another_input_shape_is_refused(self, tmp_path: Path) -> None:
        text = (KERAS_2 / "classifier.json").read_text(encoding="utf-8")
        (tmp_path / "m.json").write_text(text.replace("12, 10, 3", "10, 12, 3"), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        assert refusal(tmp_path, architecture_file="m.json", weights_file="w.h5").field == "input.shape"


def sneaky() -> keras.layers.Layer:
    return keras.layers.Lambda(lambda x: x, name="sneaky")


class TestCode:
    """A model is data: no layer brings code, or files, of its own."""

    @pytest.fixture
    def architectures(self) -> dict[str, dict[str, Any]]:
        places = {
            "layer": sneaky(),
            "nested model": keras.Sequential([keras.Input(SHAPE), sneaky()]),
            "wrapped layer": keras.layers.TimeDistributed(sneaky()),
        }
        return {
            where: json.loads(keras.Sequential([keras.Input(SHAPE), layer, keras.layers.Flatten()]).to_json())
            for where, layer in places.items()
        }

    @pytest.mark.parametrize("where", ["layer", "nested model", "wrapped layer"])
    @pytest.mark.parametrize("version", ["2.12.0", None])
    def test_a_lambda_is_refused_wherever_it_is(
        self, tmp_path: Path, architectures: dict[str, dict[str, Any]], where: str, version: str | None
    ) -> None:
        document = architectures[where] | ({"keras_version": version} if version else {})
        (tmp_path / "m.json").write_text(json.dumps(document), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        error = refusal(tmp_path, architecture_file="m.json", weights_file="w.h5")
        assert error.detail == "net: m.json has code or files of its own, which is refused: Lambda sneaky"

    def test_a_lambda_in_a_whole_h5_model_is_refused(self, tmp_path: Path, architectures: dict[str, dict[str, Any]]) -> None:
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file.attrs["model_config"] = json.dumps(architectures["nested model"])
        assert "refused: Lambda sneaky" in refusal(tmp_path, file="m.h5").detail

    @pytest.mark.parametrize("kind", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
    def test_layers_that_read_other_files_or_run_other_code_are_refused(self, tmp_path: Path, kind: str) -> None:
        layer = {"module": "keras.layers", "class_name": kind, "config": {"name": "sneaky", "filepath": "/etc"}}
        document = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
        (tmp_path / "m.json").write_text(json.dumps(document), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        assert f"refused: {kind} sneaky" in refusal(tmp_path, architecture_file="m.json", weights_file="w.h5").detail

    def test_tensorflows_functions_as_layers_are_refused_with_what_to_do(self, tmp_path: Path) -> None:
        layer = {"class_name": "TFOpLambda", "config": {"name": "tf.math.add", "function": "math.add"}}
        document = {"class_name": "Functional", "config": {"layers": [layer]}, "keras_version": "2.12.0"}
        (tmp_path / "m.json").write_text(json.dumps(document), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        detail = refusal(tmp_path, architecture_file="m.json", weights_file="w.h5").detail
        assert "has a TensorFlow function as a layer (tf.math.add), which Keras 3 does not support; use a SavedModel" in detail

    @pytest.mark.parametrize("version", ["2.12.0", None])
    @pytest.mark.parametrize("module", ["os", "my_package.layers", None])
    def test_objects_from_elsewhere_are_refused(self, tmp_path: Path, version: str | None, module: str | None) -> None:
        """Not a file of the host is imported for it."""
        custom = {"module": module, "class_name": "MyLayer", "config": {"name": "mine"}, "registered_name": "mine>MyLayer"}
        outer = {"class_name": "Sequential", "config": {"name": "m", "layers": [custom]}}
        document = outer | ({"keras_version": version} if version else {"module": "keras"})
        (tmp_path / "m.json").write_text(json.dumps(document), encoding="utf-8")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        assert "MyLayer" in refusal(tmp_path, architecture_file="m.json", weights_file="w.h5").detail

    @pytest.mark.parametrize("how", ["link", "dataset"])
    def test_weights_do_not_come_from_other_files_of_the_host(self, tmp_path: Path, how: str) -> None:
        """HDF5 can point to any file; what it holds would become weights."""
        shutil.copy(KERAS_2 / "classifier.json", tmp_path / "m.json")
        shutil.copy(KERAS_2 / "classifier_weights.h5", tmp_path / "w.h5")
        (tmp_path / "secret").write_bytes(bytes(4 * 20))
        with h5py.File(tmp_path / "w.h5", "a") as file:
            layer = file["dense"]
            name = layer.attrs["weight_names"][0]
            shape = layer[name].shape
            del layer[name]
            if how == "link":
                layer[name] = h5py.ExternalLink(str(KERAS_2 / "classifier_weights.h5"), f"/dense/{name}")
            else:
                layer.create_dataset(name, shape, "f4", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
        error = refusal(tmp_path, architecture_file="m.json", weights_file="w.h5")
        assert error.field == "weights_file"
        assert error.detail.startswith("net: cannot read w.h5: Not allowed: H5 file with ")
