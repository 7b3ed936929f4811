"""The digits model: the committed file and one trained anew are right on digits that they have not seen."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.models import load_spec

from inference.models.loading import LoadedModel, load_model

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "models" / "digits"


@pytest.fixture(scope="module")
def train() -> ModuleType:
    source = importlib.util.spec_from_file_location("digits_train", FOLDER / "train.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[source.name] = module
    source.loader.exec_module(module)
    return module


def accuracy(model: LoadedModel, train: ModuleType) -> float:
    split = train.load_split()
    return float(np.mean(model.predict(split.held_out_images).argmax(axis=1) == split.held_out_labels))


def test_the_committed_model_knows_held_out_digits(train: ModuleType) -> None:
    assert accuracy(load_model(load_spec(FOLDER)), train) > 0.97


def test_the_committed_file_is_small() -> None:
    assert (FOLDER / "digits.keras").stat().st_size < 200_000


def test_a_model_trained_anew_knows_held_out_digits(
    train: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.yaml", "labels.txt"):
        shutil.copy(FOLDER / name, tmp_path)
    assert train.main(["--output", str(tmp_path / "digits.keras")]) == 0
    measured = accuracy(load_model(load_spec(tmp_path)), train)
    assert measured > 0.97
    assert capsys.readouterr().out == f"held-out accuracy {measured:.2%} on 450 digits\n"


def test_a_model_that_has_not_learned_enough_is_not_written(
    train: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "digits.keras"
    assert train.main(["--output", str(output), "--epochs", "1"]) == 1
    assert not output.exists()
    assert "more than 97% is required" in capsys.readouterr().err


def test_what_is_held_out_is_not_trained_on(train: ModuleType) -> None:
    split, again = train.load_split(), train.load_split()
    assert len(split.labels) + len(split.held_out_labels) == 1797
    assert (split.images.min(), split.images.max()) == (0, 255)
    np.testing.assert_array_equal(split.held_out_images, again.held_out_images)
    trained_on = {image.tobytes() for image in split.images}
    assert not any(image.tobytes() in trained_on for image in split.held_out_images)


def test_the_sample_digit_is_a_held_out_seven(train: ModuleType) -> None:
    with Image.open(REPOSITORY / "samples" / "digit_7.png") as picture:
        assert (picture.size, picture.mode) == ((8, 8), "L")
        image = np.asarray(picture, np.float32).reshape(1, 8, 8, 1)
    split = train.load_split()
    distances = np.abs(split.held_out_images - image).max(axis=(1, 2, 3))
    assert distances.min() <= 0.5
    assert split.held_out_labels[distances.argmin()] == 7
    spec = load_spec(FOLDER)
    (prediction,) = load_model(spec).predict(image)
    assert spec.labels[prediction.argmax()] == "7"
    assert prediction.max() > 0.9
