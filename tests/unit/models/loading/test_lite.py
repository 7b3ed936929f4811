"""LiteRT runs a graph on a CPU where it can and where its answers are TensorFlow's; else TensorFlow does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from support.models import spec_of

from inference.models.loading import Device, load_model
from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.model import LITE, TENSORFLOW
from inference.models.loading.tensorflow import convert
from inference.models.spec import ModelSpec

SHAPE = (12, 10, 3)


def save(folder: Path, *layers: keras.Layer) -> None:
    keras.utils.set_random_seed(5)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, activation="softmax")]
    keras.Sequential([keras.Input(SHAPE), *layers, *head]).save(folder / "m.keras")


def describe(folder: Path, **options: Any) -> ModelSpec:
    return spec_of(folder, name="net", file="m.keras", input={"shape": SHAPE, "dtype": "uint8"}, **options)


@pytest.fixture
def convolutions(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(5)  # layers draw their seeds when they are made
    layers = keras.layers
    save(tmp_path, layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization())
    return tmp_path


def test_it_answers_as_tensorflow_does_whatever_the_sizes_and_their_order(convolutions: Path) -> None:
    lite = load_model(describe(convolutions))
    plain = load_model(describe(convolutions, litert=False))
    assert (lite.runtime, plain.runtime) == (LITE, TENSORFLOW)
    images = np.random.default_rng(6).integers(0, 256, (33, *SHAPE), np.uint8)
    expected = plain.predict(images)
    assert np.ptp(expected, axis=0).max() > 0.01  # the images are told apart
    for size in (1, 33, 2, 8, 1, 5):
        answer = lite.predict(images[:size])
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected[:size], atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next(convolutions: Path) -> None:
    model = load_model(describe(convolutions))
    first = model.predict(np.zeros((2, *SHAPE), np.uint8))
    kept = first.copy()
    model.predict(np.full((2, *SHAPE), 255, np.uint8))
    np.testing.assert_array_equal(first, kept)


def test_an_operation_that_litert_lacks_leaves_the_model_to_tensorflow(tmp_path: Path) -> None:
    save(tmp_path, keras.layers.Resizing(7, 5, interpolation="area"))
    model = load_model(describe(tmp_path))
    assert model.runtime == TENSORFLOW
    assert model.predict(np.zeros((3, *SHAPE), np.uint8)).shape == (3, 5)


@pytest.mark.parametrize("options", [{"litert": False}, {"xla": True}, {"mixed_precision": True}])
def test_what_asks_for_something_of_tensorflow_gets_it(convolutions: Path, options: dict[str, bool]) -> None:
    assert load_model(describe(convolutions, **options)).runtime == TENSORFLOW


def test_a_gpus_model_stays_on_the_gpu(convolutions: Path) -> None:
    assert load_model(describe(convolutions), Device("/CPU:0", is_gpu=True)).runtime == TENSORFLOW


@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_other_answers_than_tensorflows_are_not_served(convolutions: Path, monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    class Wrong(ConcurrentGraph):
        def __call__(self, batch: NDArray[Any], output: int = 0) -> NDArray[np.float32]:
            return super().__call__(batch, output) + np.float32(error)

    monkeypatch.setattr(convert, "ConcurrentGraph", Wrong)
    model = load_model(describe(convolutions))
    assert model.runtime == TENSORFLOW
    assert model.predict(np.zeros((2, *SHAPE), np.uint8)).sum() == pytest.approx(2)
