from __future__ import annotations

import math

import numpy as np
import pytest
from image_samples import LIMITS, PIXELS, PIXELS_GREY, READY, READY_FLOAT, encoded, noise, npy, through

from inference import imaging
from inference.domain import ImageFormat, ImageHeader
from inference.errors import InvalidImage
from inference.imaging import ImageLimits, decode
from inference.models.spec import InputSpec, RawArrays


class TestArrays:
    @pytest.mark.parametrize("dtype", ["uint8", "int8", "<u2", ">u2", "<i4", ">i8", "<f2", ">f4", "<f8", "bool"])
    @pytest.mark.parametrize("form", ["raw", "npy", "npy in Fortran order"])
    def test_model_ready_values_are_taken_as_they_are(self, dtype: str, form: str) -> None:
        values = (noise(32, 32, 3) // 2).astype(dtype)
        if form == "raw":
            got = through(values.tobytes(), READY_FLOAT, shape="32,32,3", dtype=dtype)
        else:
            got = through(npy(np.asfortranarray(values) if "Fortran" in form else values), READY_FLOAT)
        assert (got.dtype.name, got.shape, got.flags.c_contiguous) == ("float32", (32, 32, 3), True)
        np.testing.assert_array_equal(got, values.astype(np.float32))

    @pytest.mark.parametrize("dtype", ["uint8", "<u2", ">i4", "int64", "bool"])
    def test_whole_numbers_that_fit_go_into_bytes(self, dtype: str) -> None:
        values = noise(32, 32, 3).astype(dtype)
        got = through(values.tobytes(), READY, shape="32,32,3", dtype=dtype)
        np.testing.assert_array_equal(got, values.astype(np.uint8))

    def test_model_ready_floats_may_have_any_finite_value(self) -> None:
        values = np.random.default_rng(1).normal(0, 1000, (32, 32, 3)).astype("<f4")
        np.testing.assert_array_equal(through(values.tobytes(), READY_FLOAT, shape="32,32,3", dtype="<f4"), values)

    @pytest.mark.parametrize("spec", [READY_FLOAT, PIXELS], ids=["ready", "pixels"])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
    def test_nan_and_infinity(self, spec: InputSpec, bad: float, dtype: str) -> None:
        values = np.zeros((32, 32, 3), dtype)
        values[31, 31, 2] = bad
        with pytest.raises(InvalidImage, match="NaN or infinite") as caught:
            through(values.tobytes(), spec, shape="32,32,3", dtype=dtype)
        assert caught.value.field == "image"

    def test_a_double_too_large_for_a_float(self) -> None:
        values = np.full((32, 32, 3), 1e300)
        with pytest.raises(InvalidImage, match="infinite"):
            through(values.tobytes(), READY_FLOAT, shape="32,32,3", dtype="float64")

    @pytest.mark.parametrize("spec", [READY, PIXELS], ids=["ready", "pixels"])
    @pytest.mark.parametrize(("dtype", "low", "high"), [("uint16", 0, 256), ("int8", -1, 0), (">i8", -5, 2**40)])
    def test_whole_numbers_out_of_range(self, spec: InputSpec, dtype: str, low: int, high: int) -> None:
        values = np.zeros((32, 32, 3), dtype)
        values[0, 0, 0], values[0, 0, 1] = low, high
        with pytest.raises(InvalidImage, match=f"from {low} to {high}") as caught:
            through(values.tobytes(), spec, shape="32,32,3", dtype=dtype)
        assert (caught.value.field, caught.value.expected) == ("image", "values from 0 to 255")

    @pytest.mark.parametrize("dtype", ["uint8", ">u2", "int32", "<f2", ">f4", "float64"])
    def test_pixels_mean_the_same_whatever_the_dtype(self, dtype: str) -> None:
        values = noise(32, 32, 3)
        got = through(values.astype(dtype).tobytes(), PIXELS, shape="32,32,3", dtype=dtype)
        np.testing.assert_array_equal(got, values)

    def test_pixel_floats_are_rounded_and_clipped(self) -> None:
        values = np.resize(np.array([-3.2, 0.4, 0.6, 254.6, 255.4, 300.0], "f4"), (32, 32, 3))
        got = through(values.tobytes(), PIXELS, shape="32,32,3", dtype="float32")
        np.testing.assert_array_equal(got, np.resize(np.array([0, 0, 1, 255, 255, 255], "u1"), (32, 32, 3)))

    def test_pixel_booleans_are_black_and_white(self) -> None:
        values = np.arange(1024, dtype=np.uint8).reshape(32, 32) % 3  # 2 is true as well
        got = through(values.tobytes(), PIXELS_GREY, shape="32,32", dtype="bool")
        np.testing.assert_array_equal(got[..., 0], np.where(values, 255, 0))

    def test_transparent_pixels_are_laid_on_white(self) -> None:
        values = noise(32, 32, 4)
        values[..., 3] = np.where(np.arange(32) < 16, 0, 255)
        got = through(values.tobytes(), PIXELS, shape="32,32", dtype="uint8")
        assert (got[:, :16] == 255).all()
        np.testing.assert_array_equal(got[:, 16:], values[:, 16:, :3])

    def test_a_batch_of_one_and_a_memoryview(self) -> None:
        values = noise(32, 32, 3)
        got = through(values.tobytes(), READY, shape="[1, 32, 32, 3]", dtype="uint8")
        np.testing.assert_array_equal(got, values)
        for data, header in (
            (values.tobytes(), ImageHeader(ImageFormat.RAW, (32, 32, 3), "|u1")),
            (npy(values[None]), ImageHeader(ImageFormat.NPY)),
            (encoded(values, "PNG"), ImageHeader(ImageFormat.PNG)),
            (encoded(values, "WEBP", lossless=True), ImageHeader(ImageFormat.WEBP)),
        ):
            np.testing.assert_array_equal(imaging.decode(memoryview(data), header, READY, LIMITS), values)
        jpeg = encoded(values, "JPEG")
        header = ImageHeader(ImageFormat.JPEG)
        np.testing.assert_array_equal(
            imaging.decode(memoryview(jpeg), header, READY, LIMITS), imaging.decode(jpeg, header, READY, LIMITS)
        )


def test_pixels_scaled_to_one_are_refused_and_not_taken_for_black() -> None:
    spec = InputSpec(shape=(4, 4, 3), raw=RawArrays.PIXELS)
    scaled = np.linspace(0, 1, 48, dtype="<f4").reshape(4, 4, 3)
    header = ImageHeader(ImageFormat.RAW, (4, 4, 3), "<f4")

    with pytest.raises(InvalidImage, match="between 0 and 1") as caught:
        decode(scaled.tobytes(), header, spec, ImageLimits(max_pixels=100))
    assert caught.value.expected == "pixels from 0 to 255: multiply by 255"
    assert decode(np.zeros_like(scaled).tobytes(), header, spec, ImageLimits(max_pixels=100)).max() == 0
