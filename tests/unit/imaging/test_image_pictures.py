from __future__ import annotations

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from image_samples import (
    LIMITS,
    PIXELS,
    PIXELS_FLOAT,
    PIXELS_GREY,
    READY,
    READY_FLOAT,
    encoded,
    noise,
    npy,
    png,
    png_chunk,
    png_rows,
    size_of,
    smooth,
    through,
)
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from inference import imaging
from inference.domain import ImageFormat, ImageHeader
from inference.errors import InferenceError, InvalidImage, InvalidMetadata, PayloadTooLarge, ServiceUnavailable
from inference.imaging import pictures
from inference.models.spec import InputSpec, Interpolation, RawArrays, Resize


class TestPictures:
    @pytest.mark.parametrize("spec", [PIXELS, PIXELS_FLOAT, PIXELS_GREY], ids=["bytes", "floats", "grey"])
    @pytest.mark.parametrize("shape", [(32, 32), (32, 32, 3), (32, 32, 4), (50, 41, 3), (20, 90)], ids=str)
    def test_a_lossless_image_and_its_array_are_the_same(self, spec: InputSpec, shape: tuple[int, ...]) -> None:
        values = noise(*shape)
        raw = through(values.tobytes(), spec, shape=list(shape), dtype="uint8")
        assert (raw.shape, raw.dtype, raw.flags.c_contiguous) == (spec.shape, spec.numpy_dtype, True)
        np.testing.assert_array_equal(through(encoded(values, "PNG"), spec), raw)
        np.testing.assert_array_equal(through(npy(values), spec), raw)
        if shape[-1] != 4:
            np.testing.assert_array_equal(through(encoded(values, "WEBP", lossless=True), spec), raw)
        if shape == (32, 32, 3) and spec.shape[-1] == 3:
            np.testing.assert_array_equal(raw, values)

    def test_an_encoded_image_is_resized_for_a_model_that_takes_ready_arrays(self) -> None:
        assert through(encoded(noise(100, 80, 3), "PNG"), READY_FLOAT).max() > 1

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
    def test_lossy_formats_come_close(self, kind: str) -> None:
        values = smooth(64, 48)
        difference = through(encoded(values, kind, quality=95), size_of(values)).astype(int) - values
        assert np.abs(difference).mean() < 3

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("factor", [1, 8], ids=["whole", "reduced"])
    def test_exif_orientation(self, kind: str, orientation: int, factor: int) -> None:
        upright = smooth(48, 64)
        # where the stored picture's row 0 and column 0 are when it is looked at (CIPA DC-008)
        turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.transpose(1, 0, 2),
            6: np.rot90,
            7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a, 3),
        }
        exif = Image.Exif()
        exif[0x0112] = orientation
        big = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)).repeat(factor, 0).repeat(factor, 1))
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0}
        data = encoded(big, kind, exif=exif, **({} if kind == "PNG" else options))
        difference = np.abs(through(data, size_of(upright)).astype(int) - upright)
        assert difference.mean() < 3

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("exif", [b"", b"nonsense", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff"])
    def test_broken_exif_is_no_reason_to_refuse(self, kind: str, exif: bytes) -> None:
        got = through(encoded(smooth(32, 32), kind, exif=b"Exif\0\0" + exif), PIXELS)
        assert np.abs(got.astype(int) - smooth(32, 32)).mean() < 12

    @pytest.mark.parametrize("grey", [False, True])
    def test_palettes(self, grey: bool) -> None:
        picture = Image.fromarray(noise(32, 32, 3)).quantize(60)
        expected = np.asarray(picture.convert("L" if grey else "RGB")).reshape(32, 32, -1)
        got = through(encoded(picture, "PNG"), PIXELS_GREY if grey else PIXELS)
        np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize("transparency", [7, bytes([0, 128] + [255] * 58)], ids=["one entry", "table"])
    def test_transparent_palettes(self, transparency: int | bytes) -> None:
        picture = Image.fromarray(noise(32, 32, 3)).quantize(60)
        colours = np.asarray(picture.convert("RGB")).astype(float)
        alphas = np.full(256, 255.0)
        if isinstance(transparency, int):
            alphas[transparency] = 0
        else:
            alphas[: len(transparency)] = list(transparency)
        alpha = alphas[np.asarray(picture)][..., None] / 255
        got = through(encoded(picture, "PNG", transparency=transparency), PIXELS)
        np.testing.assert_allclose(got, colours * alpha + 255 * (1 - alpha), atol=1)

    @pytest.mark.parametrize("spec", [PIXELS, PIXELS_GREY], ids=["colour", "grey"])
    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_is_laid_on_white(self, spec: InputSpec, kind: str, mode: str) -> None:
        values = noise(32, 32, len(mode))
        values[..., :-1] = values[..., :1]  # grey, so that colour and grey models expect the same
        values[..., -1] = np.array([0, 128, 255, 200], np.uint8)[np.arange(32) % 4]
        alpha = values[..., -1:].astype(float) / 255
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        got = through(encoded(Image.fromarray(values), kind, **options), spec)
        np.testing.assert_allclose(got, np.broadcast_to(values[..., :1] * alpha + 255 * (1 - alpha), spec.shape), atol=1)

    @pytest.mark.parametrize(
        ("depth", "colour", "channels"),
        [(16, 0, 1), (16, 2, 3), (16, 4, 2), (16, 6, 4)],
        ids=["L", "RGB", "LA", "RGBA"],
    )
    def test_16_bits(self, depth: int, colour: int, channels: int) -> None:
        values = noise(32, 32, channels).astype("u2") * 257
        if channels in (2, 4):
            values[..., -1] = 0xFFFF
        got = through(png(32, 32, depth, colour, png_rows(values)), PIXELS)
        shown = values[..., : 1 if channels < 3 else 3] >> 8
        np.testing.assert_array_equal(got, np.broadcast_to(shown, (32, 32, 3)))

    def test_16_bits_with_a_transparent_grey(self) -> None:
        values = noise(32, 32, 1).astype("u2") * 257
        values[:8] = 1234
        got = through(png(32, 32, 16, 0, png_rows(values), png_chunk(b"tRNS", struct.pack(">H", 1234))), PIXELS_GREY)
        assert (got[:8] == 255).all()
        np.testing.assert_array_equal(got[8:], values[8:] >> 8)

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_few_bits(self, depth: int) -> None:
        samples = noise(32, 32) % (1 << depth)
        bits = np.unpackbits(samples[..., None], axis=-1)[..., 8 - depth :].reshape(32, -1)
        got = through(png(32, 32, depth, 0, png_rows(np.packbits(bits, axis=1))), PIXELS_GREY)
        np.testing.assert_array_equal(got[..., 0], samples * (255 // ((1 << depth) - 1)))

    def test_cmyk(self) -> None:
        rgb = smooth(32, 32)
        got = through(encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95), PIXELS)
        assert np.abs(got.astype(int) - rgb).mean() < 4

    def test_a_grey_jpeg_for_a_colour_model_and_the_reverse(self) -> None:
        grey = np.asarray(Image.fromarray(smooth(32, 32)).convert("L"))
        got = through(encoded(grey, "JPEG", quality=95), PIXELS)
        assert np.abs(got.astype(int) - grey[..., None]).mean() < 3
        got = through(encoded(smooth(32, 32), "JPEG", quality=95, subsampling=0), PIXELS_GREY)
        assert np.abs(got[..., 0].astype(int) - grey).mean() < 3

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_the_first_frame_of_an_animation(self, kind: str) -> None:
        first, second = noise(32, 32, 3), noise(32, 32, 3, seed=1)
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[Image.fromarray(second)], **options)
        np.testing.assert_array_equal(through(data), first)

    def test_the_first_picture_of_a_camera_file_with_previews(self) -> None:
        data = encoded(smooth(64, 64), "MPO", save_all=True, append_images=[Image.fromarray(smooth(64, 64, 1))], quality=95)
        assert np.abs(through(data, size_of(smooth(64, 64))).astype(int) - smooth(64, 64)).mean() < 3


class TestResizing:
    def test_the_central_square_is_kept(self) -> None:
        values = noise(32, 64, 3)
        np.testing.assert_array_equal(through(encoded(values, "PNG")), values[:, 16:48])
        np.testing.assert_array_equal(through(encoded(values.swapaxes(0, 1), "PNG")), values.swapaxes(0, 1)[16:48])

    def test_the_crop_fraction_keeps_the_middle(self) -> None:
        values = noise(64, 64, 3)
        spec = InputSpec(shape=(32, 32, 3), crop_fraction=0.5)
        np.testing.assert_array_equal(through(encoded(values, "PNG"), spec), values[16:48, 16:48])

    def test_an_array_of_the_models_size_is_cropped_too(self) -> None:
        values = noise(32, 32, 3)
        spec = InputSpec(shape=(32, 32, 3), crop_fraction=0.5, raw=RawArrays.PIXELS, interpolation=Interpolation.NEAREST)
        got = through(values.tobytes(), spec, shape="32,32,3", dtype="uint8")
        np.testing.assert_array_equal(got, values[8:24, 8:24].repeat(2, 0).repeat(2, 1))

    def test_stretching_keeps_everything(self) -> None:
        values = noise(32, 16, 3).repeat(2, 0).repeat(6, 1)
        spec = InputSpec(shape=(32, 16, 3), resize=Resize.STRETCH, interpolation=Interpolation.NEAREST)
        np.testing.assert_array_equal(through(encoded(values, "PNG"), spec), values[::2, ::6])

    @pytest.mark.parametrize("interpolation", list(Interpolation))
    def test_each_interpolation_is_the_one_asked_for(self, interpolation: Interpolation) -> None:
        values = noise(80, 80, 3)
        spec = InputSpec(shape=(32, 32, 3), interpolation=interpolation)
        reference = Image.fromarray(values).resize((32, 32), Image.Resampling[interpolation.name])
        np.testing.assert_array_equal(through(encoded(values, "PNG"), spec), np.asarray(reference))

    @pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)], ids=str)
    @pytest.mark.parametrize("resize", list(Resize))
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_tiny_and_narrow_pictures(self, shape: tuple[int, int], resize: Resize, kind: str) -> None:
        spec = InputSpec(shape=(32, 32, 3), resize=resize, crop_fraction=0.1)
        assert (through(encoded(np.full(shape, 200, np.uint8), kind), spec) > 190).all()

    @pytest.mark.parametrize(
        ("size", "spec", "decoded"),
        [
            ((800, 800), InputSpec(shape=(50, 50, 3)), (100, 100)),
            ((799, 799), InputSpec(shape=(50, 50, 3)), (200, 200)),
            ((800, 4000), InputSpec(shape=(50, 50, 3)), (100, 500)),
            ((800, 800), InputSpec(shape=(50, 50, 3), crop_fraction=0.5), (200, 200)),
            ((800, 800), InputSpec(shape=(50, 200, 3), resize=Resize.STRETCH), (400, 400)),
            ((400, 800), InputSpec(shape=(50, 100, 3), resize=Resize.STRETCH), (100, 200)),
            ((90, 90), InputSpec(shape=(50, 50, 3)), (90, 90)),
            ((10, 10), InputSpec(shape=(50, 50, 3)), (10, 10)),
            ((800, 800), InputSpec(shape=(50, 50, 3), interpolation=Interpolation.NEAREST), (800, 800)),
        ],
    )
    def test_a_jpeg_is_decoded_at_twice_the_target_at_least(
        self, size: tuple[int, int], spec: InputSpec, decoded: tuple[int, int]
    ) -> None:
        picture = JpegImageFile(io.BytesIO(encoded(np.zeros(size, np.uint8), "JPEG")))
        pictures._decode_reduced(picture, spec)
        assert (picture.height, picture.width) == decoded

    def test_a_jpeg_on_its_side_is_measured_on_its_side(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = JpegImageFile(io.BytesIO(encoded(np.zeros((400, 800), np.uint8), "JPEG", exif=exif)))
        pictures._decode_reduced(picture, InputSpec(shape=(200, 50, 3), resize=Resize.STRETCH))
        assert (picture.height, picture.width) == (200, 400)

    @pytest.mark.parametrize("interpolation", list(Interpolation))
    def test_decoding_reduced_changes_next_to_nothing(self, interpolation: Interpolation) -> None:
        data = encoded(smooth(900, 700), "JPEG", quality=90)
        whole = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling[interpolation.name], (0, 100, 700, 800))
        reference = np.asarray(whole).astype(int)
        got = through(data, InputSpec(shape=(64, 64, 3), interpolation=interpolation))
        assert np.abs(got - reference).max() <= 4
        assert np.array_equal(got, reference) == (interpolation is Interpolation.NEAREST)


class TestDecodeInto:
    def test_writes_one_slot_and_no_other(self) -> None:
        batch = np.full((3, 32, 32, 3), 7, np.float32)
        values = noise(32, 32, 3)
        imaging.decode_into(batch[1], encoded(values, "PNG"), ImageHeader(ImageFormat.PNG), READY_FLOAT, LIMITS)
        np.testing.assert_array_equal(batch[1], values)
        assert (batch[[0, 2]] == 7).all()

    @pytest.mark.parametrize("out", [np.empty((32, 32, 4), "u1"), np.empty((32, 32, 3), "f4"), np.empty(3072, "u1")])
    def test_a_wrong_slot_is_a_fault_of_ours(self, out: NDArray[Any]) -> None:
        with pytest.raises(ValueError, match="the model's input"):
            imaging.decode_into(out, bytes(3072), ImageHeader(ImageFormat.RAW, (32, 32, 3), "|u1"), READY, LIMITS)

    @pytest.mark.parametrize(
        ("data", "header", "error"),
        [
            (bytes(3071), ImageHeader(ImageFormat.RAW, (32, 32, 3), "|u1"), InvalidImage),
            (b"", ImageHeader(ImageFormat.RAW, (32, 32, 3), "|u1"), InvalidImage),
            (bytes(75), ImageHeader(ImageFormat.RAW, (5, 5, 3), "|u1"), InvalidMetadata),
            (bytes(12288), ImageHeader(ImageFormat.RAW, (32, 32, 3), "<f4"), InvalidMetadata),
            (bytes(3072), ImageHeader(ImageFormat.RAW), InvalidMetadata),
            (npy(noise(5, 5, 3)), ImageHeader(ImageFormat.NPY), InvalidImage),
            (b"", ImageHeader(ImageFormat.NPY), InvalidImage),
            (b"", ImageHeader(ImageFormat.PNG), InvalidImage),
            (encoded(noise(9, 9, 3), "JPEG"), ImageHeader(ImageFormat.PNG), InvalidImage),
            (encoded(noise(9, 9, 3), "PNG"), ImageHeader(ImageFormat.JPEG), InvalidImage),
            (encoded(noise(9, 9, 3), "PNG"), ImageHeader(ImageFormat.WEBP), InvalidImage),
            (encoded(np.zeros((1001, 1000), "u1"), "JPEG"), ImageHeader(ImageFormat.JPEG), PayloadTooLarge),
        ],
    )
    def test_the_worker_trusts_neither_the_store_nor_an_old_header(
        self, data: bytes, header: ImageHeader, error: type[InferenceError]
    ) -> None:
        with pytest.raises(error):
            imaging.decode(data, header, READY, LIMITS)

    def test_out_of_memory_is_not_the_callers_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(pictures, "_to_channels", exhausted)
        with pytest.raises(ServiceUnavailable):
            imaging.decode(encoded(noise(9, 9, 3), "PNG"), ImageHeader(ImageFormat.PNG), READY, LIMITS)

    def test_threads_do_not_disturb_one_another(self) -> None:
        images = [noise(32, 32, 3, seed=seed) for seed in range(8)]
        files = [encoded(image, "PNG") for image in images] * 20
        with ThreadPoolExecutor(8) as pool:
            for got, image in zip(pool.map(through, files), images * 20, strict=True):
                np.testing.assert_array_equal(got, image)
