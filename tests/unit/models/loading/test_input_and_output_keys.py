"""Models as they are in the wild answer as they do in process: the example of each key in docs/models.md, and every head."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from keras import layers
from numpy.typing import NDArray
from PIL import Image
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.imaging import ImageLimits, decode, inspect
from inference.models.answers import AnswerBuilder
from inference.models.loading import load_model
from inference.models.predictor.arena import SlotArena, padded_sizes
from inference.models.predictor.process import ServedModel
from inference.models.predictor.protocol import LoadModel
from inference.models.spec import ModelSpec

ROOT = Path(__file__).parents[4]
LIMITS = ImageLimits(1_000_000)
SHAPE = (8, 6, 3)
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(5)


def network(shape: tuple[int, ...], units: int, activation: str | None = None) -> keras.Model:
    """A model whose outputs differ much from image to image; its weights are as large as the values it was trained on need."""
    initializer = keras.initializers.RandomNormal(stddev=0.3)
    head = layers.Dense(units, activation=activation, kernel_initializer=initializer)
    pool = layers.GlobalAveragePooling2D(data_format="channels_first" if shape[0] < shape[-1] else "channels_last")
    return keras.Sequential([keras.Input(shape), pool, head])


def spec_with(model: keras.Model, folder: Path, **keys: Any) -> ModelSpec:
    model.save(folder / "net.keras")
    return spec_of(folder, **({"name": "net", "file": "net.keras", "input": {"shape": SHAPE}} | keys))


def predicted(spec: ModelSpec, images: NDArray[Any]) -> NDArray[np.float32]:
    """The values of images, as the predictor process computes them in its arena; images have the graph's shape and dtype."""
    arena = SlotArena(spec.input, len(images))
    assert arena._file is not None
    with arena._file:
        arena.images[: len(images)] = images
        served = ServedModel(LoadModel(spec, arena.descriptor, arena.slots), padded_sizes(4), load_model(spec))
        values = np.concatenate([served.predict((slot,)) for slot in range(len(images))])
        together = [served.predict(slots) for slots in ((0,), tuple(range(1, len(images)))) if slots]
        np.testing.assert_allclose(np.concatenate(together), values, rtol=1e-4, atol=1e-5)
    return values


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def refusal(spec: ModelSpec) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_model(spec)
    assert "\n" not in caught.value.detail
    return caught.value


def examples(section: str) -> list[dict[str, Any]]:
    """The YAML examples of a section of docs/models.md, up to the next section of the same level."""
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    content = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return [yaml.safe_load(code) for code in re.findall(r"^```yaml\n(.*?)^```", content, re.MULTILINE | re.DOTALL)]


class TestExamplesOfTheInput:
    """Each example's model gets a picture, and answers as its formula in double precision does."""

    #: of the examples, in their order: what the graph must get of RGB pixels (H, W, C)
    FORMULAS = (
        lambda x: ((x / 255 - IMAGENET[0]) / IMAGENET[1]).transpose(2, 0, 1),
        lambda x: x / 127.5 - 1,
        lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
        lambda x: (x / 255 - 0.1307) / 0.3081,
    )

    def test_each_example_has_a_formula_here(self) -> None:
        assert len(examples("Input of a model")) == len(self.FORMULAS)

    @pytest.mark.parametrize("number", range(len(FORMULAS)))
    def test_the_model_answers_as_in_process(self, tmp_path: Path, number: int) -> None:
        keys = examples("Input of a model")[number]["input"]
        height, width, channels = keys["shape"]
        model = network((channels, height, width) if keys.get("layout") == "nchw" else (height, width, channels), 4, "softmax")
        spec = spec_with(model, tmp_path, input=keys)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, channels), np.uint8)
        pixels[: height // 2] //= 3
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
        header = inspect(file.getvalue(), shape=None, dtype=None, content_type=None, spec=spec.input, limits=LIMITS)
        image = decode(file.getvalue(), header, spec.input, LIMITS)
        formula: Any = self.FORMULAS[number]
        expected = np.asarray(model(formula(pixels.astype(np.float64))[np.newaxis].astype(np.float32)))
        np.testing.assert_allclose(predicted(spec, image[np.newaxis]), expected, atol=1e-5)


class TestExamplesOfTheOutput:
    """Each example's model is served, and answers as its logits do in numpy."""

    def images(self) -> NDArray[np.uint8]:
        images = np.random.default_rng(3).integers(0, 256, (5, *SHAPE), np.uint8)
        return images // np.arange(1, 6, dtype=np.uint8).reshape(-1, 1, 1, 1)

    def test_each_example_is_tried(self) -> None:
        softmax_example, none, multi_label = examples("Output of a model")
        assert softmax_example == {"output": {"activation": "softmax"}}
        assert none["output"] == {"activation": "none"}
        assert multi_label["task"] == "multi_label"

    @pytest.mark.parametrize("litert", [True, False])
    def test_logits_of_classes(self, tmp_path: Path, litert: bool) -> None:
        model = network(SHAPE, 5)
        spec = spec_with(model, tmp_path, litert=litert, **examples("Output of a model")[0])
        logits = np.asarray(model(self.images()))
        assert np.abs(logits).max() > 2
        np.testing.assert_allclose(predicted(spec, self.images()), softmax(logits), atol=1e-5)

    def test_other_values_are_answered_as_they_are(self, tmp_path: Path) -> None:
        model = network(SHAPE, 5)
        spec = spec_with(model, tmp_path, **examples("Output of a model")[1])
        values = predicted(spec, self.images())
        np.testing.assert_allclose(values, np.asarray(model(self.images())), atol=1e-3, rtol=1e-5)
        builder = AnswerBuilder(spec)
        assert builder.are_good(values).all()
        result = builder.build(values[0])
        assert result.confidence_level == values[0].max()
        assert result.confident == bool(values[0].max() >= spec.threshold)

    def test_several_labels(self, tmp_path: Path) -> None:
        keys = examples("Output of a model")[2]
        model = network(SHAPE, 4)
        spec = spec_with(model, tmp_path, **keys)
        probabilities = sigmoid(np.asarray(model(self.images())))
        values = predicted(spec, self.images())
        np.testing.assert_allclose(values, probabilities, atol=1e-5)
        builder = AnswerBuilder(spec)
        assert builder.are_good(values).all()
        thresholds = [keys["threshold"].get(label, 0.5) for label in keys["labels"]]
        for row, expected in zip(values, probabilities, strict=True):
            found = builder.build(row)
            over = [index for index in range(4) if expected[index] >= thresholds[index]]
            assert found.labels is not None
            assert [index for index, _ in found.labels] == sorted(over, key=lambda index: -expected[index])

    def test_sigmoids_of_the_model_itself(self, tmp_path: Path) -> None:
        model = network(SHAPE, 3, "sigmoid")
        spec = spec_with(model, tmp_path, task="multi_label")
        np.testing.assert_allclose(predicted(spec, self.images()), np.asarray(model(self.images())), atol=1e-5)

    def test_one_label_of_a_multi_label_model_is_one_label(self, tmp_path: Path) -> None:
        model = network(SHAPE, 1, "sigmoid")
        spec = spec_with(model, tmp_path, task="multi_label", labels=["dog"])
        np.testing.assert_allclose(predicted(spec, self.images()), np.asarray(model(self.images())), atol=1e-5)

    def test_one_logit_is_served_as_two_classes(self, tmp_path: Path) -> None:
        model = network(SHAPE, 1)
        spec = spec_with(model, tmp_path, output={"activation": "sigmoid"}, labels=["no", "yes"])
        second = sigmoid(np.asarray(model(self.images())))
        np.testing.assert_allclose(predicted(spec, self.images()), np.concatenate([1 - second, second], axis=1), atol=1e-5)

    def test_one_value_without_an_activation_is_one_class(self, tmp_path: Path) -> None:
        model = network(SHAPE, 1)
        spec = spec_with(model, tmp_path, output={"activation": "none"})
        np.testing.assert_allclose(predicted(spec, self.images()), np.asarray(model(self.images())), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("units", "activation", "keys", "says"),
    [
        (5, None, {}, ["softmax", "sigmoid", "none", "multi_label"]),
        (1, None, {}, ["sigmoid", "none"]),
        (3, "sigmoid", {}, ["task: multi_label"]),
        (3, None, {"task": "multi_label"}, ["sigmoid", "none"]),
        (3, "relu", {"task": "multi_label"}, ["sigmoid", "none"]),
        (1, None, {"output": {"activation": "softmax"}}, ["always 1", "sigmoid"]),
        (5, None, {"output": {"activation": "sigmoid"}}, ["softmax", "task: multi_label"]),
        (5, "softmax", {"output": {"activation": "softmax"}}, ["leave the key out"]),
        (1, "sigmoid", {"output": {"activation": "sigmoid"}}, ["leave the key out"]),
        (3, "sigmoid", {"output": {"activation": "sigmoid"}, "task": "multi_label"}, ["leave the key out"]),
    ],
    ids=str,
)
def test_what_does_not_fit_the_key_is_refused_with_the_key(
    tmp_path: Path, units: int, activation: str | None, keys: dict[str, Any], says: list[str]
) -> None:
    error = refusal(spec_with(network(SHAPE, units, activation), tmp_path, **keys))
    assert error.field == "output.activation"
    assert "output.activation" in error.detail or "leave the key out" in error.detail
    for part in says:
        assert part in error.detail


def test_a_list_of_thresholds_fits_the_classes(tmp_path: Path) -> None:
    spec = spec_with(network(SHAPE, 3, "sigmoid"), tmp_path, task="multi_label", threshold=[0.5, 0.5])
    error = refusal(spec)
    assert error.field == "threshold"
    assert "2 thresholds" in error.detail
    assert "3 classes" in error.detail


@pytest.mark.parametrize(("layout", "other"), [("nchw", "nhwc"), ("nhwc", "nchw")])
def test_a_model_of_the_other_layout_is_refused_with_the_key(tmp_path: Path, layout: str, other: str) -> None:
    shape = (3, 8, 6) if other == "nchw" else SHAPE
    error = refusal(spec_with(network(shape, 4, "softmax"), tmp_path, input={"shape": SHAPE, "layout": layout}))
    assert error.field == "input.layout"
    assert f"set input.layout to {other}" in error.detail
