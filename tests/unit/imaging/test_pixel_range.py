"""Floats that are taken as pixels: scaled, normalised and shifted ones are refused, a resized picture's are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_samples import LIMITS, PIXELS, PIXELS_FLOAT, PIXELS_GREY, noise, npy, smooth
from numpy.typing import NDArray
from PIL import Image

from inference import imaging
from inference.errors import InvalidImage
from inference.models.spec import InputSpec

Floats = NDArray[Any]
SAMPLES = Path(__file__).parents[3] / "samples"

IMAGENET_MEAN, IMAGENET_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CAFFE_MEAN = np.array([123.68, 116.78, 103.94])

SCALINGS: dict[str, Callable[[Floats], Floats]] = {
    "0 to 1": lambda x: x / 255,
    "0 to 1, resized": lambda x: x / 255 * 1.05 - 0.02,
    "-1 to 1": lambda x: x / 127.5 - 1,
    "-0.5 to 0.5": lambda x: x / 255 - 0.5,
    "ImageNet": lambda x: (x / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION,
    "of each image": lambda x: (x - x.mean()) / x.std(),
    "ImageNet's mean": lambda x: x - CAFFE_MEAN,
    "centred": lambda x: x - 128,
    "10 bits": lambda x: x * 1023 / 255,
    "12 bits": lambda x: x * 4095 / 255,
    "16 bits": lambda x: x * 257,
    "0 to 1/255": lambda x: x / 65025,
    "0 to 1, of 16 bits": lambda x: x / 65535,
    "next to 0": lambda x: (x / 127.5 - 1) * 0.009,
    "deviation alone": lambda x: x / 58.4,
    "logarithm": np.log1p,
    "another byte order": lambda x: np.rint(x).astype(">f4").view("<f4"),
    "whole numbers read as floats": lambda x: np.rint(x).astype("<i4").view("<f4"),
    "far below": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 5, -1000, x),
    "far above": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 5, 20_000, x),
}


def photo() -> Floats:
    with Image.open(SAMPLES / "coffee.jpg") as picture:
        return np.asarray(picture.resize((64, 64)), np.float64)


def on_white() -> Floats:
    """A small thing on a large white ground: next to nothing is negative once a mean is taken from it."""
    values = np.full((64, 64, 3), 255.0)
    values[28:36, 28:36] = noise(8, 8, 3)
    return values


PICTURES: dict[str, Callable[[], Floats]] = {
    "photo": photo,
    "noise": lambda: noise(64, 64, 3).astype(float),
    "on white": on_white,
    "on black": lambda: 255 - on_white(),
}


def sent(values: Floats, form: str, dtype: str, spec: InputSpec = PIXELS) -> NDArray[Any]:
    """The pixels that the model is given."""
    array = values.astype(dtype)
    metadata: dict[str, Any] = {"shape": None, "dtype": None}
    if form == "raw":
        data, metadata = array.tobytes(), {"shape": list(array.shape), "dtype": dtype}
    else:
        data = npy(np.asfortranarray(array) if "Fortran" in form else array)
    header = imaging.inspect(data, **metadata, content_type=None, spec=spec, limits=LIMITS)
    return imaging.decode(data, header, spec, LIMITS)


def assert_refused(values: Floats, form: str = "raw", dtype: str = "<f4", spec: InputSpec = PIXELS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        sent(values, form, dtype, spec)
    assert (caught.value.status, caught.value.field) == (400, "image")
    assert "from 0 to 255: " in (caught.value.expected or "")
    return caught.value


def resized(values: Floats, method: Image.Resampling, factor: float) -> Floats:
    height, width, channels = values.shape
    size = int(width * factor), int(height * factor)
    bands = (Image.fromarray(values[..., c].astype("f4")).resize(size, method) for c in range(channels))
    return np.stack([np.asarray(band) for band in bands], -1)


class TestRefused:
    @pytest.mark.parametrize("name", SCALINGS)
    @pytest.mark.parametrize("picture", PICTURES)
    def test_scaled_pictures(self, picture: str, name: str) -> None:
        assert_refused(SCALINGS[name](PICTURES[picture]()))

    @pytest.mark.parametrize("name", ["0 to 1", "-1 to 1", "of each image", "12 bits"])
    @pytest.mark.parametrize("form", ["raw", "npy", "npy in Fortran order"])
    @pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
    @pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1), (64, 64, 3), (64, 64, 4)], ids=str)
    def test_in_every_form(self, name: str, form: str, dtype: str, shape: tuple[int, ...]) -> None:
        values = photo()[..., [0, 1, 2, 0]]
        scaled = SCALINGS[name](values if shape[-1] == 4 else values[..., : shape[-1] if len(shape) == 3 else 1])
        for spec in (PIXELS, PIXELS_FLOAT, PIXELS_GREY):
            assert_refused(scaled.reshape(shape), form, dtype, spec)

    @pytest.mark.parametrize("value", [-1, -0.5, -128, -1e-5, 1e-40, 1e-5, 0.009, 0.5, 1, 2.64, 5.5, 300.5, 1023, 65504])
    def test_one_value_everywhere(self, value: float) -> None:
        assert_refused(np.full((32, 32, 3), value))

    def test_a_bright_normalised_picture_without_negative_values(self) -> None:
        assert_refused(SCALINGS["ImageNet"](200 + photo() / 5))

    @pytest.mark.parametrize(
        ("low", "high", "says", "expected"),
        [
            (0, 1, "the pixels are between 0 and 1", "pixels from 0 to 255: multiply by 255"),
            (-1, 1, r"not pixels from 0 to 255: they range from -1 to 1$", "127.5"),
            (-2.2, 2.75, r"they range from -2.2 to 2.75$", "undo the scaling or the subtraction of a mean"),
            (0, 4.4, r"they range from 0 to 4.4$", "undo the scaling or the normalisation"),
            (0, 1e-40, r"not pixels from 0 to 255", "byte order"),
            (0, 65535, r"they range from 0 to 65535$", "255 / 65535"),
        ],
    )
    def test_the_answer_says_what_was_found_and_what_to_do(self, low: float, high: float, says: str, expected: str) -> None:
        refusal = assert_refused(np.linspace(low, high, 3072).reshape(32, 32, 3))
        with pytest.raises(InvalidImage, match=says):
            raise refusal
        assert expected in (refusal.expected or "")

    def test_alpha_is_looked_at_for_itself(self) -> None:
        values = np.concatenate([photo(), np.ones((64, 64, 1))], -1)
        assert "alpha values are between 0 and 1" in assert_refused(values).detail
        values[..., :3], values[..., 3] = values[..., :3] / 255, 255
        assert "the pixels are between 0 and 1" in assert_refused(values).detail


class TestTaken:
    @pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
    @pytest.mark.parametrize("form", ["raw", "npy", "npy in Fortran order"])
    @pytest.mark.parametrize(("low", "high"), [(0, 255), (-3, 258), (-15, 270), (0, 14), (1.5, 250)])
    def test_a_little_past_both_ends(self, low: float, high: float, form: str, dtype: str) -> None:
        values = photo()[:32, :32]
        values[0, 0, 0], values[0, 0, 1] = low, high
        values = np.clip(values, low, high).astype(dtype)
        np.testing.assert_array_equal(sent(values, form, dtype), np.rint(np.clip(values, 0, 255)))

    @pytest.mark.parametrize("method", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
    @pytest.mark.parametrize("factor", [0.7, 1.5, 3.5])
    @pytest.mark.parametrize("name", [*PICTURES, "black and white", "lines", "light lines", "one line", "dark"])
    def test_resized_pictures(self, name: str, factor: float, method: Image.Resampling) -> None:
        lines = np.full((64, 64, 1), 255.0)
        lines[10:50:4] = lines[:, 10:50:6] = 0
        line = np.zeros((64, 64, 1))
        line[30] = 255
        drawn = {
            "black and white": noise(64, 64, 1) // 128 * 255.0,
            "lines": lines,
            "light lines": 255 - lines,
            "one line": line,
            "dark": photo() / 12,
        }
        values = resized(drawn[name] if name in drawn else PICTURES[name](), method, factor)
        sent(values, "raw", "<f4")

    def test_rounding_is_no_scaling(self) -> None:
        white = np.full((32, 32, 3), 255.0001)
        assert (sent(white, "raw", "<f4") == 255).all()
        assert (sent(np.full((32, 32, 3), 2.998), "raw", "<f2") == 3).all()

    @pytest.mark.parametrize("value", [0, -0.0, 2, 3, 6, 7, 128, 255])
    def test_one_value_everywhere(self, value: float) -> None:
        assert (sent(np.full((32, 32, 3), value), "raw", "<f4") == round(value)).all()

    @pytest.mark.parametrize("largest", [4, 6])
    def test_a_very_dark_picture_of_whole_numbers(self, largest: int) -> None:
        values = noise(32, 32, 3) % largest
        np.testing.assert_array_equal(sent(values, "raw", "<f4"), values)

    def test_a_transparent_picture(self) -> None:
        values = np.dstack([smooth(32, 32), np.zeros((32, 32))])
        assert (sent(values, "raw", "<f4") == 255).all()
