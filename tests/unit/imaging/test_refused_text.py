"""Files that became text on their way, and other things that are no picture, are called by their names."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from image_samples import PIXELS, encoded, inspect, noise, npy, smooth, through

from inference.errors import InvalidImage, InvalidMetadata, UnsupportedImageType

FILES = {
    "PNG": encoded(noise(40, 40, 3), "PNG"),
    "JPEG": encoded(smooth(40, 40), "JPEG"),
    "WebP": encoded(smooth(40, 40), "WEBP"),
    ".npy": npy(noise(9, 9, 3)),
    "GIF": encoded(noise(40, 40, 3), "GIF"),
    "TIFF": encoded(noise(40, 40, 3), "TIFF"),
    "BMP": encoded(noise(40, 40, 3), "BMP"),
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf",
}

BASE64: dict[str, Callable[[bytes], bytes]] = {
    "plain": base64.b64encode,
    "lines": base64.encodebytes,
    "lines of Windows": lambda data: b"\r\n " + base64.encodebytes(data).replace(b"\n", b"\r\n"),
    "for URLs": base64.urlsafe_b64encode,
    "for URLs, unpadded": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "quoted": lambda data: b'"' + base64.b64encode(data) + b'"',
    "JSON": lambda data: json.dumps(base64.encodebytes(data).decode()).replace("/", "\\/").encode(),
    "Python": lambda data: repr(base64.b64encode(data)).encode(),
    "percent-encoded": lambda data: quote(base64.b64encode(data), safe="").encode(),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + base64.b64encode(data),
    "UTF-16": lambda data: base64.b64encode(data).decode().encode("utf-16"),
}
HEXADECIMAL: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data.hex().encode(),
    "spaced capitals": lambda data: data.hex(" ").upper().encode(),
    "0x": lambda data: b"0x" + data.hex().encode(),
    "0x each": lambda data: ", ".join(f"0x{byte:02x}" for byte in data).encode(),
    "escaped": lambda data: "".join(f"\\x{byte:02x}" for byte in data).encode(),
}
DATA_URLS: dict[str, Callable[[bytes], bytes]] = {
    "usual": lambda data: b"data:image/png;base64," + base64.b64encode(data),
    "capitals, lines": lambda data: b"\n DATA:IMAGE/PNG;BASE64," + base64.encodebytes(data),
    "without a type": lambda data: b"data:;base64," + base64.b64encode(data),
    "with a parameter": lambda data: b"data:image/png;charset=utf-8;base64," + base64.b64encode(data),
    "percent-encoded bytes": lambda data: b"data:image/png," + quote(data).encode(),
    "percent-encoded": lambda data: quote(b"data:image/png;base64," + base64.b64encode(data), safe="").encode(),
    "quoted": lambda data: b'"data:image/png;base64,' + base64.b64encode(data) + b'"',
    "without data:": lambda data: b"image/png;base64," + base64.b64encode(data),
    "of no file": lambda _: b"data:image/svg+xml,%3Csvg",
}
#: metadata that leave the bytes to speak for themselves
METADATA: list[dict[str, Any]] = [
    {},
    {"content_type": "image/png"},
    {"content_type": "text/plain"},
    {"shape": "9,9,3"},
    {"dtype": "u1"},
]


def assert_named(data: bytes, says: str, **metadata: Any) -> None:
    with pytest.raises(UnsupportedImageType, match=says) as caught:
        inspect(data, **metadata)
    assert (caught.value.status, caught.value.field) == (415, "image")
    assert "PNG, JPEG, WebP or .npy" in (caught.value.expected or "")
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize("metadata", METADATA, ids=str)
@pytest.mark.parametrize("name", FILES)
class TestTextOfFiles:
    @pytest.mark.parametrize("form", BASE64)
    def test_base64(self, name: str, form: str, metadata: dict[str, Any]) -> None:
        assert_named(BASE64[form](FILES[name]), f"base64 text of a {name} file: decode it first", **metadata)

    @pytest.mark.parametrize("form", HEXADECIMAL)
    def test_hexadecimal(self, name: str, form: str, metadata: dict[str, Any]) -> None:
        assert_named(HEXADECIMAL[form](FILES[name]), f"hexadecimal text of a {name} file", **metadata)

    @pytest.mark.parametrize("form", DATA_URLS)
    def test_a_data_url(self, name: str, form: str, metadata: dict[str, Any]) -> None:
        assert_named(DATA_URLS[form](FILES[name]), "a data URL, not the image itself: decode it first", **metadata)


@pytest.mark.parametrize("name", ["PNG", "JPEG", ".npy"])
@pytest.mark.parametrize("encoding", ["utf-8 of latin-1", "replaced"])
def test_a_file_that_was_read_as_text(name: str, encoding: str) -> None:
    data = FILES[name]
    text = data.decode("latin-1") if encoding != "replaced" else data.decode("utf-8", "replace")
    assert_named(text.encode("utf-8"), "was read as text before it was sent")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(FILES["PNG"]), "gzip-compressed"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "7z"),
        (b"Rar!\x1a\x07\1\0" + bytes(20), "RAR"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "Zstandard"),
        (b"II+\0\x08\0\0\0" + bytes(20), "BigTIFF"),
        (b"MM\0+\0\x08\0\0" + bytes(20), "BigTIFF"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\xff\x4f\xff\x51\0\x2f" + bytes(20), "JPEG 2000"),
        *((b"\0\0\0\x18ftyp" + brand + bytes(20), "HEIC") for brand in (b"heim", b"heis", b"hevx")),
        *((encoded(noise(40, 40, 3), "PPM").replace(b"P6", kind), "PNM") for kind in (b"P6", b"P5", b"P6\n# GIMP", b"PF")),
        (b"P7\nWIDTH 40\nHEIGHT 40\n", "PNM"),
        (FILES["PNG"].replace(b"\r\n", b"\n"), "read as text"),
        (FILES["PNG"].replace(b"\n", b"\r\n"), "read as text"),
        (FILES["PNG"].replace(b"\r", b"\n"), "read as text"),
        (bytes(byte & 127 for byte in FILES["PNG"]), "read as text"),
        (base64.b64encode(noise(32, 32, 3).tobytes()), "base64 text: decode it first"),
        (base64.encodebytes(noise(32, 32, 3, dtype="<f4").tobytes()), "base64 text: decode it first"),
        (base64.b64encode(noise(4, 4, 3).tobytes()), "base64 text: decode it first"),
        *((form(noise(32, 32, 3).tobytes()), "hexadecimal text: decode it first") for form in HEXADECIMAL.values()),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b'{"image": "iVBORw0KGgo"}', "JSON"),
        (b"[[0, 1], [2, 3]]", "JSON"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b'<?xml version="1.0"?><Error/>', "XML"),
        (b"https://example.org/cat.png", "an address"),
        (b"s3://inference/cat.png", "an address"),
    ],
)
def test_other_things(data: bytes, says: str) -> None:
    assert_named(data, says)


NO_TEXT_OF_ARRAYS = [
    b"the quick brown fox jumps over the lazy dog " * 9,
    b"0123456789" * 90,
    b"12 34 56 78 90\n" * 90,
    b"aaaaAAAA" * 99,
]


@pytest.mark.parametrize(
    "data", [b"AAAA", b"hello, world", bytes(3072), noise(3072).tobytes(), b"%", b"data", b"\xff\xfe", *NO_TEXT_OF_ARRAYS]
)
def test_other_bytes_ask_for_shape_and_dtype(data: bytes) -> None:
    with pytest.raises(InvalidMetadata, match="raw bytes need shape and dtype"):
        inspect(data)


class TestWithShapeAndDtype:
    @pytest.mark.parametrize("form", BASE64)
    @pytest.mark.parametrize("name", ["PNG", "GIF"])
    def test_the_text_of_a_file(self, name: str, form: str) -> None:
        with pytest.raises(InvalidImage, match=f"needs 3072; the file is base64 text of a {name} file") as caught:
            inspect(BASE64[form](FILES[name]), shape="32,32,3", dtype="uint8")
        assert "3072 bytes" in (caught.value.expected or "")

    @pytest.mark.parametrize("form", HEXADECIMAL)
    def test_hexadecimal(self, form: str) -> None:
        with pytest.raises(InvalidImage, match="needs 3072; the file is hexadecimal text: decode it first"):
            inspect(HEXADECIMAL[form](noise(32, 32, 3).tobytes()), shape="32,32,3", dtype="uint8")

    def test_a_list(self) -> None:
        with pytest.raises(InvalidImage, match="needs 3072; the file is JSON text"):
            inspect(json.dumps(noise(32, 32, 3).tolist()).encode(), shape="32,32,3", dtype="uint8")

    def test_a_data_url(self) -> None:
        with pytest.raises(InvalidImage, match="a data URL"):
            inspect(DATA_URLS["usual"](FILES["PNG"]), shape="32,32,3", dtype="uint8")

    @pytest.mark.parametrize("form", [form for form in BASE64 if form not in ("UTF-16", "percent-encoded", "JSON")])
    @pytest.mark.parametrize("shape", ["32,32,3", "32,32"])
    def test_the_text_of_an_array(self, form: str, shape: str) -> None:
        with pytest.raises(InvalidImage, match=r"is base64 text.*: decode it first"):
            inspect(BASE64[form](noise(32, 32, 3).tobytes()), shape=shape, dtype="uint8")

    @pytest.mark.parametrize(
        ("letters", "shape"), [(b"iVBORw0K" * 384, "32,32,3"), (b"aaa" * 1024, "32,32"), (b"aZ09" * 256, "16,16")]
    )
    def test_an_array_of_letters_is_an_array(self, letters: bytes, shape: str) -> None:
        spec = PIXELS.model_copy(update={"shape": (16, 16, 3)}) if shape == "16,16" else PIXELS
        got = through(letters, spec, shape=shape, dtype="uint8")
        if len(letters) == got.size:
            assert got.tobytes() == letters
