"""A served model ends in probabilities, or in one that a second class is made for; any other is refused when it is loaded."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import LoadedModel, load_model
from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.model import LITE, TENSORFLOW
from inference.models.loading.tensorflow import convert
from inference.models.probabilities import TOLERANCE, are_probabilities, described

SHAPE = (12, 10, 3)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Layers draw their seeds when they are made."""
    keras.utils.set_random_seed(3)


def network(*head: keras.layers.Layer) -> keras.Model:
    """A small network whose answers differ much from image to image."""
    body = [layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(SHAPE), *body, *head])


def images(count: int, dtype: str = "uint8") -> NDArray[Any]:
    """Noise, each image darker than the one before."""
    noise = np.random.default_rng(7).integers(0, 256, (count, *SHAPE))
    return (noise // np.arange(1, count + 1).reshape(-1, 1, 1, 1)).astype(dtype)


def save(model: keras.Model, folder: Path, form: str) -> dict[str, str]:
    """Write `model` as one of `FORMS`; gives the keys of its description."""
    match form:
        case "keras" | "h5":
            model.save(folder / f"m.{form}")
            return {"file": f"m.{form}"}
        case "json and weights":
            (folder / "m.json").write_text(model.to_json(), encoding="utf-8")
            model.save_weights(folder / "m.weights.h5")
            return {"architecture_file": "m.json", "weights_file": "m.weights.h5"}
        case _:
            model.export(folder / "saved", format="tf_saved_model", verbose=False)
            return {"file": "saved"}


FORMS = ["keras", "h5", "json and weights", "SavedModel"]


def load(model: keras.Model, folder: Path, form: str = "keras", *, dtype: str = "uint8", **description: Any) -> LoadedModel:
    files = save(model, folder, form)
    return load_model(spec_of(folder, name="net", input={"shape": SHAPE, "dtype": dtype}, **files, **description))


def refusal(model: keras.Model, folder: Path, form: str = "keras", **description: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(model, folder, form, **description)
    assert caught.value.detail.startswith("net: ")
    assert "\n" not in caught.value.detail
    return caught.value


class TestOneUnit:
    """The unit's class is the second one; the first is the complement."""

    @staticmethod
    def check(model: keras.Model, loaded: LoadedModel, dtype: str = "uint8", tolerance: float = 1e-5) -> None:
        batch = images(5, dtype)
        positive = np.asarray(model(batch.astype(np.float32))).reshape(-1)
        assert loaded.output_size == 2
        for count in (5, 1):
            answer = loaded.predict(batch[:count])
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, np.stack([1 - positive, positive], axis=1)[:count], atol=tolerance)
        np.testing.assert_array_equal(loaded.predict(batch).argmax(axis=1), positive > 0.5)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_it_is_two_classes_in_every_format(self, tmp_path: Path, form: str, dtype: str) -> None:
        model = network(layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(3.0)))
        loaded = load(model, tmp_path, form, dtype=dtype, labels=["cat", "dog"])
        assert loaded.runtime == LITE
        assert set(loaded.predict(images(5, dtype)).argmax(axis=1)) == {0, 1}  # else the classes may be exchanged
        self.check(model, loaded, dtype)

    @pytest.mark.parametrize("form", ["keras", "SavedModel"])
    @pytest.mark.parametrize("options", [{"litert": False}, {"xla": True}])
    def test_whatever_runs_it(self, tmp_path: Path, form: str, options: dict[str, bool]) -> None:
        model = network(layers.Dense(1, activation="sigmoid"))
        loaded = load(model, tmp_path, form, **options)
        gc.collect()  # of what was only needed to load it
        assert loaded.runtime == TENSORFLOW
        self.check(model, loaded)

    def test_in_half_precision_the_complement_has_all_digits(self, tmp_path: Path) -> None:
        model = network(layers.Dense(1, activation="sigmoid"))
        loaded = load(model, tmp_path, mixed_precision=True)
        self.check(model, loaded, tolerance=0.02)
        np.testing.assert_allclose(loaded.predict(images(5)).sum(axis=1), 1, atol=1e-7)

    @pytest.mark.parametrize(
        "head",
        [
            lambda: (layers.Dense(1), layers.Activation("sigmoid")),
            lambda: (layers.Dense(1, activation="hard_sigmoid"),),
            lambda: (layers.Dense(1, activation="sigmoid", bias_initializer=keras.initializers.Constant(60.0)),),
            lambda: (layers.Dense(1, activation="sigmoid", dtype="mixed_float16"),),
            lambda: (layers.Dense(1, activation="tanh"), layers.Rescaling(0.5, 0.5)),
        ],
        ids=["layer of its own", "hard", "never in doubt", "float16", "scaled"],
    )
    def test_it_may_come_about_in_any_way(self, tmp_path: Path, head: Callable[[], Sequence[keras.layers.Layer]]) -> None:
        model = network(*head())
        self.check(model, load(model, tmp_path), tolerance=1e-3)

    @pytest.mark.parametrize("options", [{}, {"litert": False}, {"xla": True}])
    def test_it_may_be_a_number_and_no_vector(self, tmp_path: Path, options: dict[str, bool]) -> None:
        model = network(layers.Dense(1, activation="sigmoid"), layers.Reshape(()))
        self.check(model, load(model, tmp_path, **options))

    @pytest.mark.parametrize("labels", [1, 3])
    def test_another_number_of_labels_than_two_is_refused_with_why(self, tmp_path: Path, labels: int) -> None:
        error = refusal(network(layers.Dense(1, activation="sigmoid")), tmp_path, labels=["x"] * labels)
        assert error.field == "labels"
        assert f"there are {labels} labels, and the model in m.keras has 2 classes: its one output unit is" in error.detail

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("activation", "says"),
        [
            ("linear", "values from "),
            ("tanh", "values from "),
            ("relu", "values from "),
            ("softmax", "1 for each of them, as a softmax over one unit does"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
    def test_what_is_no_probability_is_refused_with_what_to_do(
        self, tmp_path: Path, form: str, activation: str, says: str
    ) -> None:
        small = keras.initializers.Constant(1e-3)  # what these give is from 0 to 1 for most images
        detail = refusal(network(layers.Dense(1, activation=activation, kernel_initializer=small)), tmp_path, form).detail
        assert "has one output unit, which must be a probability, from 0 to 1; for trial images it returned " in detail
        assert says in detail
        assert 'Dense(1, activation="sigmoid")' in detail
        assert 'Dense(2, activation="softmax")' in detail

    @pytest.mark.parametrize("scale", [lambda: layers.Rescaling(0.9), layers.BatchNormalization])
    def test_a_logit_that_is_scaled_is_refused(self, tmp_path: Path, scale: Callable[[], keras.layers.Layer]) -> None:
        """Though it is from 0 to 1 for the trial images."""
        head = (layers.Dense(1, kernel_initializer=keras.initializers.Constant(1e-4)), scale())
        assert "computed by MatMul" in refusal(network(*head), tmp_path).detail

    @pytest.mark.parametrize("form", ["keras", "SavedModel"])
    @pytest.mark.parametrize("head", [lambda: layers.Dense(1, activation="softsign"), lambda: layers.EinsumDense("ab,bc->ac", 1)])
    def test_what_only_happens_to_be_from_0_to_1_is_refused(
        self, tmp_path: Path, form: str, head: Callable[[], keras.layers.Layer]
    ) -> None:
        layer = head()
        model = network(layers.ReLU(), layer)
        layer.set_weights([np.full(weights.shape, 0.01) for weights in layer.get_weights()])
        assert "and for other images they may be " in refusal(model, tmp_path, form).detail

    @pytest.mark.parametrize("form", FORMS)
    def test_a_mean_of_several_models_is_served(self, tmp_path: Path, form: str) -> None:
        inputs = keras.Input(SHAPE)
        members = [network(layers.Dense(1, activation="sigmoid"))(inputs) for _ in range(3)]
        model = keras.Model(inputs, layers.Average()(members))
        self.check(model, load(model, tmp_path, form))

    def test_weights_that_are_damaged_are_refused(self, tmp_path: Path) -> None:
        bad = layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(np.nan))
        assert "returns no finite values for any trial image" in refusal(network(bad), tmp_path).detail


class TestManyUnits:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("units", [2, 5])
    @pytest.mark.parametrize("activation", ["linear", "log_softmax", "relu", "tanh", "sigmoid", "softplus"])
    def test_what_is_no_probabilities_is_refused_with_what_to_do(
        self, tmp_path: Path, form: str, units: int, activation: str
    ) -> None:
        detail = refusal(network(layers.Dense(units, activation=activation)), tmp_path, form, labels=["x"] * units).detail
        assert "must return probabilities from 0 to 1 that sum to 1; for a trial image it returned values from " in detail
        assert "keras.layers.Softmax()" in detail
        assert ("independent sigmoids" in detail) == (activation == "sigmoid")

    @pytest.mark.parametrize("options", [{"litert": False}, {"xla": True}, {"mixed_precision": True}])
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_whatever_runs_it(self, tmp_path: Path, options: dict[str, bool], dtype: str) -> None:
        assert "must return probabilities" in refusal(network(layers.Dense(5)), tmp_path, dtype=dtype, **options).detail

    def test_a_softmax_over_the_images_of_a_batch_is_refused(self, tmp_path: Path) -> None:
        model = network(layers.Dense(5), layers.Softmax(axis=0))
        assert "must return probabilities" in refusal(model, tmp_path).detail

    @pytest.mark.parametrize("form", FORMS)
    def test_with_a_softmax_it_is_served(self, tmp_path: Path, form: str) -> None:
        model = network(layers.Dense(5), layers.Softmax())
        loaded = load(model, tmp_path, form, labels=["x"] * 5)
        np.testing.assert_allclose(loaded.predict(images(3)), np.asarray(model(images(3).astype(np.float32))), atol=1e-5)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    @pytest.mark.parametrize("units", [2, 1000])
    def test_a_softmax_in_half_precision_is_one(self, tmp_path: Path, policy: str, units: int) -> None:
        head = layers.Dense(units, activation="softmax", dtype=policy)
        assert load(network(head), tmp_path).output_size == units

    def test_a_model_that_is_never_in_doubt_is_served(self, tmp_path: Path) -> None:
        """The answers are 0 and 1."""
        layer = layers.Dense(5, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=10, seed=1))
        keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layer]).save(tmp_path / "m.keras")
        loaded = load_model(spec_of(tmp_path, name="net", file="m.keras", input={"shape": SHAPE}))
        assert set(np.unique(loaded.predict(images(5)))) <= {0.0, 1.0}

    def test_a_mean_of_several_models_is_served(self, tmp_path: Path) -> None:
        inputs = keras.Input(SHAPE)
        members = [network(layers.Dense(5, activation="softmax"))(inputs) for _ in range(3)]
        assert load(keras.Model(inputs, layers.Average()(members)), tmp_path).output_size == 5

    @pytest.mark.parametrize("options", [{}, {"litert": False}])
    def test_a_model_that_overflows_outside_its_own_range_is_served(self, tmp_path: Path, options: dict[str, bool]) -> None:
        """It takes 0 to 1: an overflow of what is 255 times as much says nothing against it."""
        layer = layers.Dense(5, activation="softmax", kernel_initializer=keras.initializers.Constant(3e35))
        keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layer]).save(tmp_path / "m.keras")
        description = {"name": "net", "file": "m.keras", "input": {"shape": SHAPE, "dtype": "float32"}}
        loaded = load_model(spec_of(tmp_path, **description, **options))
        assert loaded.runtime == (TENSORFLOW if options else LITE)
        assert np.isnan(loaded.predict(np.full((1, *SHAPE), 255, np.float32))).any()
        np.testing.assert_allclose(loaded.predict(np.full((1, *SHAPE), 0.5, np.float32)), 0.2, atol=1e-6)

    def test_weights_that_are_damaged_are_refused(self, tmp_path: Path) -> None:
        bad = layers.Dense(5, activation="softmax", kernel_initializer=keras.initializers.Constant(np.nan))
        detail = refusal(network(bad), tmp_path).detail
        assert "returns no finite values for any trial image; its weights may be damaged" in detail

    def test_litert_is_compared_where_tensorflow_is_right_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answers that are checked are TensorFlow's; other ones of LiteRT are never served."""

        class Wrong(ConcurrentGraph):
            def __call__(self, batch: NDArray[Any], output: int = 0) -> NDArray[np.float32]:
                return np.full((len(batch), 5), 7, np.float32)

        monkeypatch.setattr(convert, "ConcurrentGraph", Wrong)
        loaded = load(network(layers.Dense(5, activation="softmax")), tmp_path)
        assert loaded.runtime == TENSORFLOW
        np.testing.assert_allclose(loaded.predict(images(3)).sum(axis=1), 1, atol=1e-6)


class TestSignatures:
    """SavedModels that no Keras made."""

    @staticmethod
    def refusal(folder: Path, classify: Callable[[tf.Tensor], tf.Tensor]) -> str:
        signature = tf.function(classify).get_concrete_function(tf.TensorSpec((None, *SHAPE), tf.float32))
        tf.saved_model.save(tf.Module(), str(folder / "saved"), signatures=signature)
        with pytest.raises(ConfigurationError) as caught:
            load_model(spec_of(folder, name="net", file="saved", input={"shape": SHAPE}))
        return caught.value.detail

    def test_class_numbers_are_refused(self, tmp_path: Path) -> None:
        detail = self.refusal(tmp_path, lambda x: tf.argmax(tf.reduce_mean(x, [1, 2]), axis=1))
        assert detail.endswith("must return one probability for each class; for trial images it returned int64 values")

    def test_answers_that_depend_on_the_batch_are_refused(self, tmp_path: Path) -> None:
        def similarities(x: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(x, (-1, 360))
            return tf.nn.softmax(flat @ tf.transpose(flat))

        assert "for trial images it returned 2 or 3 values for an image" in self.refusal(tmp_path, similarities)

    def test_one_vector_for_all_images_is_refused(self, tmp_path: Path) -> None:
        detail = self.refusal(tmp_path, lambda x: tf.nn.softmax(tf.reduce_mean(x, [0, 1, 2])[:2]))
        assert "must have an output of shape (n, classes); for 3 images it returned (2,)" in detail


class TestRows:
    @pytest.mark.parametrize(
        ("row", "is_good"),
        [
            ([0, 1, 0], True),
            ([0.2, 0.3, 0.5], True),
            ([0.335, 0.335, 0.335], True),  # rounded
            ([0.2, 0.3, 0.6], False),
            ([-1, 1, 1], False),
            ([2, -0.5, -0.5], False),
            ([0, 0, 0], False),
            ([np.nan, 0.5, 0.5], False),
            ([np.inf, -np.inf, 1], False),
            ([np.inf, 0, 0], False),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_each_is_judged_alone(self, row: list[float], is_good: bool) -> None:
        rows = np.array([[1, 0, 0], row, [0, 0, 1]], np.float32)
        np.testing.assert_array_equal(are_probabilities(rows), [True, is_good, True])

    def test_many_small_values_are_summed_well(self) -> None:
        assert are_probabilities(np.full((1, 21_841), 1 / 21_841, np.float32)).all()
        assert TOLERANCE < 0.05

    def test_it_is_said_what_is_there(self) -> None:
        assert described(np.array([70, -2.5], np.float32)) == "values from -2.5 to 70 that sum to 67.5"
        assert described(np.array([np.nan, 1], np.float32)) == "values that are not finite"


@pytest.mark.parametrize("folder", ["models/digits-vgg/vgg", "models/digits-vgg/vgg_0"])
def test_the_models_of_the_seeds_form_end_in_probabilities(repository: Path, tmp_path: Path, folder: str) -> None:
    for name in ("model.json", "model.h5"):
        shutil.copy(repository / folder / name, tmp_path)
    assert "softmax" in json.dumps(json.loads((tmp_path / "model.json").read_text(encoding="utf-8")))
    description = {"architecture_file": "model.json", "weights_file": "model.h5", "input": {"shape": [32, 32, 3]}}
    assert load_model(spec_of(tmp_path, name="vgg", **description)).output_size == 10
