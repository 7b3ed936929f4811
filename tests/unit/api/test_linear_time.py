"""Requests are read in time that grows with its length and no faster: the requests of all others wait for it."""

from __future__ import annotations

import contextlib
import gc
import io
import struct
import time
from collections.abc import Callable
from functools import partial

import pytest
from api_rig import picture
from flask import Flask, request

from api.app import _Request
from api.forms.json_body import read_json
from api.forms.parser import OTHER_PARTS
from inference.errors import InferenceError
from inference.imaging import ImageLimits, inspect
from inference.models.spec import InputSpec
from inference.settings import shown_value

MIB = 2**20
#: One input is as many times as long as the other: where the time grows with the square, it is 64 times as long.
FACTOR = 8
MAX_FACTOR = 24
FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
END = b"\r\n--b--\r\n"
JPEG, PNG = picture("JPEG", 64), picture("PNG", 64)
EXIF = (b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 1, 6)).ljust(65_000, b"\0")


def form(body: bytes) -> Callable[[], object]:
    app = Flask("form")
    app.request_class = _Request
    app.config["MAX_FORM_PARTS"] = 256 + OTHER_PARTS

    def read() -> None:
        headers = {"Content-Type": FORM, "Content-Length": str(len(body))}
        with app.test_request_context("/", method="POST", input_stream=io.BytesIO(body), headers=headers):
            request.form.keys()

    return read


def json(text: bytes) -> Callable[[], object]:
    return lambda: read_json(text, "body", "{}")


def image(data: bytes) -> Callable[[], object]:
    spec = InputSpec(shape=(64, 64, 3))
    limits = ImageLimits(50_000_000)
    return lambda: inspect(data, shape=[64, 64, 3], dtype=None, content_type=None, spec=spec, limits=limits)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def in_jpeg(inserted: bytes) -> bytes:
    return JPEG[:2] + inserted + JPEG[2:]


def in_scan(inserted: bytes) -> bytes:
    return JPEG[:-2] + inserted + JPEG[-2:]


#: by the size in bytes
INPUTS: dict[str, Callable[[int], Callable[[], object]]] = {
    "a form of line ends": lambda size: form(PART + b"\r\n" * (size // 2) + END),
    "a field of text": lambda size: form(FIELD + b"a" * size + END),
    "lines before the form": lambda size: form(b"\r\n" * (size // 2) + PART + b"a" + END),
    "long headers of parts": lambda size: form((PART[:-6] + b'\\"' * 5_000 + b'"\r\n\r\n\r\n') * (size // 10_080) + b"--b--\r\n"),
    "many parts": lambda size: form((PART + b"a" * 8_000 + b"\r\n") * (size // 8_100) + b"--b--\r\n"),
    "JSON of lists": lambda size: json(b"[" + b"[]," * (size // 3) + b"1]"),
    "JSON of filled lists": lambda size: json(b"[" + b"[1]," * (size // 4) + b"1]"),
    "JSON of members": lambda size: json(b'{"x":":",' + b",".join(b'"%d":1' % n for n in range(size // 11)) + b"}"),
    "JSON that is deep": lambda size: json(b"[" * size),
    "JSON of text": lambda size: json(b'["' + b":,[{" * (size // 4) + b'"]'),
    "JSON of NaN": lambda size: json(b"[" + b"NaN," * (size // 4) + b"1]"),
    "JSON of digits": lambda size: json(b"[NaN," + b"1" * size + b"]"),
    "EXIF in a JPEG": lambda size: image(in_jpeg(segment(0xE1, EXIF) * (size // 65_004))),
    "small segments in a JPEG": lambda size: image(in_jpeg(segment(0xE5, b"") * (size // 4))),
    "padding in a JPEG": lambda size: image(in_jpeg(b"\xff" * size)),
    "restarts in a JPEG": lambda size: image(in_scan(b"\xff\xd0" * (size // 2))),
    "stuffing in a JPEG": lambda size: image(in_scan(b"\xff\0" * (size // 2))),
    "small chunks in a PNG": lambda size: image(PNG[:33] + struct.pack(">I4sI", 0, b"tEXt", 0) * (size // 12) + PNG[33:]),
    "empty pixels in a PNG": lambda size: image(PNG[:33] + struct.pack(">I4sI", 0, b"IDAT", 0) * (size // 12) + PNG[33:]),
    "spaces": lambda size: image(b" " * size),
    "base64": lambda size: image(b"QUJD" * (size // 4)),
    "colons in a logged text": lambda size: partial(shown_value, "@" + ":" * size),
    "URLs in a logged text": lambda size: partial(shown_value, "@" + "://" * (size // 3)),
    "names in a logged text": lambda size: partial(shown_value, "?" + "token" * (size // 5)),
    "HTML": lambda size: image(b"<html>" * (size // 6)),
}


def cpu_s(read: Callable[[], object]) -> float:
    """The least of some runs: the machine does other things too. A collection would go through the objects of all other tests."""
    times = []
    gc.disable()
    try:
        for _ in range(5):
            began = time.thread_time()
            with contextlib.suppress(InferenceError):
                read()
            times.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(times)


@pytest.mark.parametrize("name", INPUTS)
def test_no_time_grows_faster_than_the_input(name: str) -> None:
    size = MIB if name.startswith(("JSON", "long")) else 8 * MIB
    short_s, long_s = cpu_s(INPUTS[name](size // FACTOR)), cpu_s(INPUTS[name](size))
    assert long_s < MAX_FACTOR * max(short_s, 0.001)
