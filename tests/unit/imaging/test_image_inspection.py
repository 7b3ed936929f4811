from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from image_samples import (
    LIMITS,
    PIXELS,
    PIXELS_GREY,
    READY,
    READY_FLOAT,
    READY_GREY,
    encoded,
    inspect,
    noise,
    npy,
    npy_with_header,
    png,
)
from PIL import Image
from support.samples import as_sent

from inference import imaging
from inference.domain import ImageFormat, ImageHeader
from inference.errors import InferenceError, InvalidImage, InvalidMetadata, PayloadTooLarge, UnsupportedImageType
from inference.models.spec import InputSpec


class Refusal(NamedTuple):
    kind: type[InferenceError]
    status: int
    field: str


IMAGE = Refusal(InvalidImage, 400, "image")
SHAPE = Refusal(InvalidMetadata, 400, "metadata.shape")
DTYPE = Refusal(InvalidMetadata, 400, "metadata.dtype")
TOO_LARGE = Refusal(PayloadTooLarge, 413, "image")
TYPE = Refusal(UnsupportedImageType, 415, "image")


def assert_refused(refusal: Refusal, says: str, action: Callable[[], object]) -> None:
    with pytest.raises(InferenceError, match=says) as caught:
        action()
    assert (type(caught.value), caught.value.status, caught.value.field) == refusal
    assert caught.value.expected
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (encoded(noise(4, 4, 3), "PNG"), ImageFormat.PNG),
        (encoded(noise(4, 4, 3), "JPEG"), ImageFormat.JPEG),
        (encoded(noise(4, 4, 3), "WEBP"), ImageFormat.WEBP),
        (npy(noise(4, 4, 3)), ImageFormat.NPY),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"GIF89a", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_sniff(data: bytes, found: ImageFormat | None) -> None:
    assert imaging.sniff(data) is found
    assert imaging.sniff(memoryview(data)) is found


class TestDoor:
    @pytest.mark.parametrize(
        ("spec", "shape", "dtype", "byte_count", "header"),
        [
            (READY, "32,32,3", "uint8", 3072, ((32, 32, 3), "|u1")),
            (READY, [1, 32, 32, 3], "uint8", 3072, ((32, 32, 3), "|u1")),
            (READY, "32x32", "uint8", 3072, ((32, 32, 3), "|u1")),
            (READY, "32x32x3", "int64", 24576, ((32, 32, 3), "<i8")),
            (READY_GREY, "32x32", "uint8", 1024, ((32, 32, 1), "|u1")),
            (READY_FLOAT, "32,32,3", ">f8", 24576, ((32, 32, 3), ">f8")),
            (READY_FLOAT, "32,32,3", "uint8", 3072, ((32, 32, 3), "|u1")),
            (READY_FLOAT, "32,32,3", "bool", 3072, ((32, 32, 3), "|b1")),
            (PIXELS, "256x256", "uint8", 65536, ((256, 256, 1), "|u1")),
            (PIXELS, "256x256", "uint8", 196608, ((256, 256, 3), "|u1")),
            (PIXELS, "256x256", "uint8", 262144, ((256, 256, 4), "|u1")),
            (PIXELS, "7,5", "<f4", 420, ((7, 5, 3), "<f4")),
            (PIXELS_GREY, "7,5,4", "uint16", 280, ((7, 5, 4), "<u2")),
            (PIXELS, "1000,1000", "uint8", 1_000_000, ((1000, 1000, 1), "|u1")),
        ],
    )
    def test_raw_arrays(
        self, spec: InputSpec, shape: object, dtype: str, byte_count: int, header: tuple[tuple[int, ...], str]
    ) -> None:
        assert inspect(bytes(byte_count), spec, shape=shape, dtype=dtype) == ImageHeader(ImageFormat.RAW, *header)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize(
        ("shape", "dtype", "content_type"),
        [
            (None, None, None),
            ("9,7,3", None, None),
            ("9x7", None, None),
            ([1, 9, 7, 4], None, None),
            (None, "uint8", None),
            (None, "|u1", None),
            (None, None, "text/plain"),
            (None, None, "image/gif"),
        ],
    )
    def test_an_encoded_image_speaks_for_itself(self, kind: str, shape: object, dtype: object, content_type: str | None) -> None:
        data = encoded(noise(9, 7, 3), kind)
        header = inspect(data, READY, shape=shape, dtype=dtype, content_type=content_type)
        assert header == ImageHeader(ImageFormat(kind.lower()))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize(
        ("shape", "dtype", "error", "says"),
        [
            ("banana", None, SHAPE, "'banana' is not a shape"),
            ("9", None, SHAPE, "one image"),
            ("9,9,9", None, SHAPE, "the shape 9,9,9 is not that of the (PNG|JPEG|WebP) file, which is 9,7$"),
            ("7,9", None, SHAPE, "the shape 7,9 is not that of the (PNG|JPEG|WebP) file, which is 9,7$"),
            ("9,7,2", None, SHAPE, "9,7,2 is not"),
            (None, "banana", DTYPE, "'banana' is not a dtype"),
            (None, "float32", DTYPE, "the dtype float32 is not that of the (PNG|JPEG|WebP) file, which is uint8"),
        ],
    )
    def test_what_does_not_agree_with_an_encoded_image(
        self, kind: str, shape: object, dtype: object, error: Refusal, says: str
    ) -> None:
        data = encoded(noise(9, 7, 3), kind)
        assert_refused(error, says, partial(inspect, data, READY, shape=shape, dtype=dtype))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_an_image_on_its_side_has_two_shapes(self, kind: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(noise(9, 7, 3), kind, exif=exif)
        for shape in ("9,7", "7,9", "7,9,3"):
            inspect(data, shape=shape)
        assert_refused(SHAPE, "which is 9,7$", partial(inspect, data, shape="9,9"))

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [("32,32,3", None), ("32,32", None), ([1, 32, 32, 3], None), (None, "int16"), (None, ">i2"), (None, "<i2")],
    )
    @pytest.mark.parametrize("order", "<>")
    def test_what_agrees_with_an_npy_file(self, shape: object, dtype: str | None, order: str) -> None:
        if dtype is None or dtype[0] not in "<>" or dtype[0] == order:
            data = npy(noise(32, 32, 3).astype(f"{order}i2"))
            assert inspect(data, READY, shape=shape, dtype=dtype) == ImageHeader(ImageFormat.NPY)

    @pytest.mark.parametrize(
        ("shape", "dtype", "error", "says"),
        [
            ("banana", None, SHAPE, "'banana' is not a shape"),
            ("32,32,1", None, SHAPE, "the shape 32,32,1 is not that of the .npy file, which is 32,32,3"),
            ("3,32,32", None, SHAPE, "3,32,32 is not"),
            (None, "banana", DTYPE, "'banana' is not a dtype"),
            (None, "float32", DTYPE, "the dtype float32 is not that of the .npy file, which is uint8"),
        ],
    )
    def test_what_does_not_agree_with_an_npy_file(self, shape: object, dtype: object, error: Refusal, says: str) -> None:
        assert_refused(error, says, partial(inspect, npy(noise(32, 32, 3)), READY, shape=shape, dtype=dtype))

    @pytest.mark.parametrize("version", [(1, 0), (2, 0)])
    def test_an_npy_file_speaks_for_itself(self, version: tuple[int, int]) -> None:
        assert inspect(npy(noise(32, 32, 3), version), READY) == ImageHeader(ImageFormat.NPY)

    @pytest.mark.parametrize(
        ("spec", "byte_count", "declared", "error", "says"),
        [
            (READY, 0, ("32,32,3", "uint8"), IMAGE, "empty"),
            (READY, 99, ("32,32,3", "uint8"), IMAGE, "99 bytes.*3072"),
            (READY, 99, ("32,32", "uint8"), IMAGE, "1024 or 3072 or 4096"),
            (READY, 20480, ("32,32,3", "float32"), IMAGE, "20480 bytes.*12288"),
            (READY, 75, ("5,5,3", "uint8"), SHAPE, "5,5,3 is not the model's 32,32,3"),
            (READY, 1024, ("32x32", "uint8"), SHAPE, "32,32,1 is not"),
            (READY, 3072, ("3,32,32", "uint8"), SHAPE, "3,32,32 is not"),
            (READY, 6144, ("2,32,32,3", "uint8"), SHAPE, "one image"),
            (READY, 3072, ("3072", "uint8"), SHAPE, "one image"),
            (READY, 3072, ("?", "uint8"), SHAPE, "not a shape"),
            (READY, 3072, ("", ""), SHAPE, "not a shape"),
            (READY, 3072, (None, "uint8"), SHAPE, "shape is missing"),
            (READY, 3072, ("32,32,3", None), DTYPE, "dtype is missing"),
            (READY, 3072, ("32,32,3", "object"), DTYPE, "'object'"),
            (READY, 12288, ("32,32,3", "float32"), DTYPE, "without loss"),
            (PIXELS, 50, ("5,5,2", "uint8"), SHAPE, "2 channels"),
            (PIXELS, 75, ("3,5,5", "uint8"), SHAPE, "5 channels"),
            (PIXELS, 1_001_000, ("1001,1000", "uint8"), TOO_LARGE, "1001000.*1000000"),
        ],
    )
    def test_refused_arrays(
        self, spec: InputSpec, byte_count: int, declared: tuple[object, object], error: Refusal, says: str
    ) -> None:
        shape, dtype = declared
        assert_refused(error, says, partial(inspect, bytes(byte_count), spec, shape=shape, dtype=dtype))

    @pytest.mark.parametrize(
        ("data", "content_type", "error", "says"),
        [
            (b"", None, IMAGE, "empty"),
            (bytes(9), None, SHAPE, "need shape and dtype"),
            (bytes(9), "image/png", SHAPE, "need shape and dtype"),
            (bytes(9), "application/octet-stream; a=b", SHAPE, "need shape and dtype"),
            (b"BM raw bytes, not a bitmap", None, SHAPE, "need shape and dtype"),
            (bytes(9), "Image/GIF", TYPE, "image/gif"),
            (bytes(9), "application/pdf", TYPE, "application/pdf"),
            (bytes(9), "text/plain; charset=utf-8", TYPE, "text/plain is"),
            (encoded(noise(9, 9, 3), "GIF"), None, TYPE, "GIF"),
            (encoded(noise(9, 9, 3), "GIF"), "image/png", TYPE, "GIF"),
            (encoded(noise(9, 9, 3), "BMP"), None, TYPE, "BMP"),
            (encoded(noise(9, 9, 3), "TIFF"), None, TYPE, "TIFF"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", None, TYPE, "AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", None, TYPE, "HEIC"),
            (b"%PDF-1.7", None, TYPE, "PDF"),
        ],
    )
    def test_refused_types(self, data: bytes, content_type: str | None, error: Refusal, says: str) -> None:
        assert_refused(error, says, partial(inspect, data, content_type=content_type))

    @pytest.mark.parametrize(
        ("spec", "data", "error", "says"),
        [
            (READY, npy(noise(5, 5, 3)), IMAGE, "5,5,3 is not the model's 32,32,3"),
            (READY, npy(noise(2, 32, 32, 3)), IMAGE, "one image"),
            (READY, npy(noise(32, 32, 3, dtype="float32")), IMAGE, "without loss"),
            (READY, npy(noise(32, 32, 3))[:-1], IMAGE, "3199 bytes.*3200"),
            (READY, npy(noise(32, 32, 3)) + b"\0", IMAGE, "3201 bytes.*3200"),
            (READY, npy(noise(0, 32, 3)), IMAGE, "not a shape"),
            (READY, npy(noise(32, 32, 3) + 1j), IMAGE, "not a dtype"),
            (READY, npy(np.zeros((32, 32, 3), "u1,u1")), IMAGE, "not a dtype"),
            (PIXELS, npy(np.zeros((1001, 1000), "u1")), TOO_LARGE, "1001000"),
            (PIXELS, encoded(np.zeros((1001, 1000), "u1"), "PNG"), TOO_LARGE, "1001000.*1000000"),
            (PIXELS, encoded(np.zeros((1001, 1000), "u1"), "JPEG"), TOO_LARGE, "1001000.*1000000"),
            (PIXELS, encoded(np.zeros((1001, 1000), "u1"), "WEBP"), TOO_LARGE, "1001000.*1000000"),
            (PIXELS, encoded(noise(9, 9, 3), "PNG")[:30], IMAGE, "PNG"),
            (PIXELS, encoded(noise(9, 9, 3), "JPEG")[:30], IMAGE, "JPEG"),
            (PIXELS, encoded(noise(9, 9, 3), "WEBP")[:26], IMAGE, "WebP"),
            (PIXELS, encoded(noise(9, 9, 3), "WEBP")[:-9], IMAGE, "WebP"),
            (PIXELS, png(0, 9, 8, 2, b""), IMAGE, "PNG"),
            (PIXELS, png(9, 9, 7, 2, b""), IMAGE, "PNG"),
        ],
    )
    def test_refused_files(self, spec: InputSpec, data: bytes, error: Refusal, says: str) -> None:
        assert_refused(error, says, partial(inspect, data, spec))

    def test_an_encoded_image_with_shape_and_dtype_gets_the_hint(self) -> None:
        with pytest.raises(InvalidImage, match="it is a PNG file, so leave shape and dtype out") as caught:
            inspect(encoded(noise(32, 32, 3), "PNG"), READY, shape="32,32,3", dtype="uint8")
        assert (caught.value.status, caught.value.field) == (400, "image")

    def test_415_lists_what_is_accepted(self) -> None:
        with pytest.raises(UnsupportedImageType) as caught:
            inspect(b"GIF89a")
        assert all(name in (caught.value.expected or "") for name in ("PNG", "JPEG", "WebP", ".npy", "shape and dtype"))

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '|O', 'fortran_order': False, 'shape': (32, 32, 3)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-32, -32, 3)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000, 10000000, 3)}",
            "{'descr': '|u1', 'fortran_order': 2, 'shape': (32, 32, 3)}",
            "{'descr': ['|u1'], 'fortran_order': False, 'shape': (32, 32, 3)}",
            "{'descr': '|u1', 'shape': (32, 32, 3)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (32, True, 3)}",
            "__import__('os').abort()",
            "-" * 1000 + "1",
            "(" * 1000,
            "[" * 90 + "]" * 90,
            "\0",
            "",
            " " * 5000,
        ],
        ids=lambda header: header[:24],
    )
    @pytest.mark.parametrize("spec", [READY, PIXELS], ids=["ready", "pixels"])
    def test_made_up_npy_headers(self, header: str, spec: InputSpec) -> None:
        data = npy_with_header(header, bytes(3072))
        with pytest.raises((InvalidImage, PayloadTooLarge)) as caught:
            inspect(data, spec)
        assert caught.value.field == "image"
        with pytest.raises((InvalidImage, PayloadTooLarge)):
            imaging.decode(data, ImageHeader(ImageFormat.NPY), spec, LIMITS)

    @pytest.mark.parametrize(
        "header", [ImageHeader(ImageFormat.RAW, (32, 32, 3), ">f4"), ImageHeader(ImageFormat.WEBP, None, None)]
    )
    def test_the_header_travels_as_plain_data(self, header: ImageHeader) -> None:
        assert ImageHeader.from_dict(as_sent(header)) == header
