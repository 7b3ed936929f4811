"""Pixels reach the graph in its dtype, scale, order of channels and layout; model-ready arrays stay as they are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from inference.errors import InvalidImage, InvalidMetadata
from inference.imaging import ImageLimits, decode, decode_into, inspect
from inference.imaging.model_input import write_pixels
from inference.models.spec import InputSpec

LIMITS = ImageLimits(1_000_000)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pixels_of(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def decoded(data: bytes, spec: InputSpec, **metadata: Any) -> NDArray[Any]:
    sent = {"shape": None, "dtype": None, "content_type": None} | metadata
    return decode(data, inspect(data, spec=spec, limits=LIMITS, **sent), spec, LIMITS)


def npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", [npy, png])
@pytest.mark.parametrize(
    ("keys", "scaled"),
    [
        ({}, lambda x: x),
        ({"scale": "none", "dtype": "float32"}, lambda x: x),
        ({"scale": "1/255"}, lambda x: x / 255),
        ({"scale": 0.5}, lambda x: x * 0.5),
        ({"scale": "0..1"}, lambda x: x / 255),
        ({"scale": "-1..1"}, lambda x: x / 127.5 - 1),
        ({"scale": "imagenet"}, lambda x: (x / 255 - MEAN) / STD),
        ({"scale": "imagenet", "channel_order": "bgr"}, lambda x: ((x / 255 - MEAN) / STD)[..., ::-1]),
        ({"channel_order": "bgr"}, lambda x: x[..., ::-1]),
        ({"scale": "1/255", "mean": 0.5, "std": 0.25}, lambda x: (x / 255 - 0.5) / 0.25),
        ({"scale": "-1..1", "mean": [0.5, 0, 0.1], "std": [1, 2, 4]}, lambda x: (x / 127.5 - 1 - [0.5, 0, 0.1]) / [1, 2, 4]),
        # blue first, and so is the mean
        ({"channel_order": "bgr", "mean": [1, 20, 90], "std": 64}, lambda x: (x[..., ::-1] - [1, 20, 90]) / 64),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_pictures_and_arrays_of_pixels_are_scaled(form: Any, layout: str, keys: dict[str, Any], scaled: Any) -> None:
    spec = InputSpec(shape=(6, 6, 3), raw="pixels", layout=layout, **keys)
    pixels = pixels_of((6, 6, 3))
    expected = scaled(pixels.astype(np.float64))
    found = decoded(form(pixels), spec)
    assert found.dtype == spec.numpy_dtype
    assert found.shape == spec.array_shape
    np.testing.assert_allclose(
        found, expected.transpose(2, 0, 1) if layout == "nchw" else expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max())
    )


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_grey_pictures_are_scaled(layout: str) -> None:
    spec = InputSpec(shape=(5, 5, 1), layout=layout, scale="1/255", mean=0.1307, std=0.3081)
    pixels = pixels_of((5, 5, 1))
    expected = ((pixels / 255 - 0.1307) / 0.3081).reshape(spec.array_shape)
    np.testing.assert_allclose(decoded(png(pixels), spec), expected, atol=1e-6)


finite = st.floats(-10, 10, width=32)
positive = st.floats(0.0625, 10, width=32)


@given(
    scale=st.floats(0.001, 2).flatmap(lambda x: st.sampled_from([x, -x])) | st.sampled_from(["-1..1", "0..1"]),
    mean=finite | st.lists(finite, min_size=3, max_size=3),
    std=positive | st.lists(positive, min_size=3, max_size=3),
    order=st.sampled_from(["rgb", "bgr"]),
    layout=st.sampled_from(["nhwc", "nchw"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 1000),
)
def test_values_are_those_of_the_formula_in_double_precision(
    *, scale: Any, mean: Any, std: Any, order: str, layout: str, size: tuple[int, int], seed: int
) -> None:
    spec = InputSpec(shape=(*size, 3), scale=scale, mean=mean, std=std, channel_order=order, layout=layout)
    pixels = pixels_of(spec.shape, seed)
    factor, shift = {"-1..1": (1 / 127.5, 1), "0..1": (1 / 255, 0)}.get(scale, (scale, 0))
    taken = pixels[..., ::-1] if order == "bgr" else pixels
    expected = (taken.astype(np.float64) * factor - shift - np.array(mean)) / np.array(std)
    found = np.empty(spec.array_shape, np.float32)
    write_pixels(found, pixels, spec)
    largest_term = max(1, 255 * abs(factor) / np.min(std), (np.abs(mean).max() + shift) / np.min(std))
    expected = expected.transpose(2, 0, 1) if layout == "nchw" else expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest_term)


def test_model_ready_arrays_are_not_changed() -> None:
    spec = InputSpec(shape=(4, 6, 3), scale="imagenet", channel_order="bgr")
    values = np.random.default_rng(1).normal(size=(4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(decoded(npy(values), spec), values)


class TestChannelsFirst:
    SPEC = InputSpec(shape=(4, 6, 3), layout="nchw", dtype="float32")
    VALUES = np.random.default_rng(2).normal(size=(3, 4, 6)).astype(np.float32)

    @pytest.mark.parametrize("shape", [(3, 4, 6), (1, 3, 4, 6)])
    def test_model_ready_arrays_have_the_shape_that_the_graph_takes(self, shape: tuple[int, ...]) -> None:
        values = self.VALUES.reshape(shape)
        np.testing.assert_array_equal(decoded(npy(values), self.SPEC), self.VALUES)
        raw = decoded(values.tobytes(), self.SPEC, shape=list(shape), dtype="float32")
        np.testing.assert_array_equal(raw, self.VALUES)

    def test_another_shape_is_refused_with_that_shape(self) -> None:
        with pytest.raises(InvalidMetadata) as caught:
            decoded(self.VALUES.tobytes(), self.SPEC, shape="4,6,3", dtype="float32")
        assert (caught.value.field, caught.value.expected) == ("metadata.shape", "3,4,6")
        with pytest.raises(InvalidImage, match="not the model's 3,4,6"):
            decoded(npy(self.VALUES.transpose(1, 2, 0)), self.SPEC)

    @pytest.mark.parametrize("shape", [None, (4, 6), (1, 4, 6)])
    def test_one_channel_may_be_left_out(self, shape: tuple[int, ...] | None) -> None:
        spec = InputSpec(shape=(4, 6, 1), layout="nchw", dtype="float32")
        values = self.VALUES[0]
        found = decoded(npy(values), spec, shape=shape)
        np.testing.assert_array_equal(found, values[np.newaxis])
        if shape is not None:
            np.testing.assert_array_equal(decoded(values.tobytes(), spec, shape=shape, dtype="float32"), values[np.newaxis])


FORMS = {
    "C order": lambda values: values,
    "Fortran order": np.asfortranarray,
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "Fortran order, big-endian": lambda values: np.asfortranarray(values.astype(values.dtype.newbyteorder(">"))),
    "batch dimension": lambda values: values[np.newaxis],
    "batch dimension, Fortran order": lambda values: np.asfortranarray(values[np.newaxis]),
    "not contiguous": lambda values: np.repeat(values, 2, axis=0)[::2],
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("raw", ["pixels", "model_ready"])
def test_npy_files_of_any_order_have_the_same_values(form: Any, dtype: Any, raw: str) -> None:
    spec = InputSpec(shape=(5, 5, 3), dtype="float32", raw=raw)
    pixels = pixels_of((5, 5, 3))
    saved = form(pixels.astype(dtype))
    data = npy(saved)
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), saved)
    np.testing.assert_array_equal(decoded(data, spec), pixels)


@pytest.mark.parametrize("shape", [(2, 5, 5, 3), (5, 1, 5, 3), (1, 1, 5, 5, 3)])
def test_other_numbers_of_images_are_refused(shape: tuple[int, ...]) -> None:
    spec = InputSpec(shape=(5, 5, 3), raw="pixels")
    with pytest.raises((InvalidImage, InvalidMetadata)):
        decoded(npy(np.zeros(shape, np.uint8)), spec)


def test_an_array_of_another_layout_is_a_fault_of_the_caller() -> None:
    spec = InputSpec(shape=(5, 5, 3), layout="nchw", raw="pixels")
    data = npy(pixels_of((5, 5, 3)))
    header = inspect(data, shape=None, dtype=None, content_type=None, spec=spec, limits=LIMITS)
    for out in (np.empty((5, 5, 3), np.uint8), np.empty((5, 5, 3), np.uint8).transpose(2, 0, 1)):
        with pytest.raises(ValueError, match="the model's input"):
            decode_into(out, data, header, spec, LIMITS)
