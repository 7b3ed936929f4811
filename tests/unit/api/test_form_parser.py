"""Forms in: text fields and files as they were sent, whatever their number, size and where the reads end."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from urllib3 import encode_multipart_formdata
from werkzeug.exceptions import RequestEntityTooLarge

from api.form_parser import FormParser


def parse(parts: list[tuple[str, object]], **limits: int) -> tuple[dict[str, list[str]], list[bytes], list[str | None]]:
    """Text fields, the content of the files named image, and their media types."""
    body, content_type = encode_multipart_formdata(parts)
    return parse_body(body, content_type, **limits)


def parse_body(body: bytes, content_type: str, **limits: int) -> tuple[dict[str, list[str]], list[bytes], list[str | None]]:
    boundary = content_type.partition("boundary=")[2]
    options = {"boundary": boundary}
    _, form, files = FormParser(**limits).parse(BytesIO(body), "multipart/form-data", len(body), options)
    images = files.getlist("image")
    return form.to_dict(flat=False), [image.stream.read() for image in images], [image.mimetype for image in images]


def image(content: bytes) -> tuple[str, object]:
    return "image", ("a b.png", content, "image/png")


def test_fields_and_files() -> None:
    form, images, types = parse([("metadata", "größer"), image(b"1"), ("model", "digits"), image(b""), image(b"\r\n--")])
    assert form == {"metadata": ["größer"], "model": ["digits"]}
    assert images == [b"1", b"", b"\r\n--"]
    assert types == ["image/png"] * 3


@pytest.mark.parametrize(("count", "longest"), [(3000, 2), (2000, 300), (12, 300_000)])
def test_every_file_comes_whole_and_in_order(count: int, longest: int) -> None:
    """Of bytes that look like the end of a part."""
    chance = random.Random(count)  # noqa: S311 no secret
    sent = [chance.choice([b"\r", b"\n", b"-", b"\r\n--", b"x"]) * chance.randint(0, longest) for _ in range(count)]
    assert parse([image(content) for content in sent])[1] == sent


def test_a_file_of_one_piece_is_not_copied() -> None:
    body, content_type = encode_multipart_formdata([image(b"x" * 1000)])
    options = {"boundary": content_type.partition("boundary=")[2]}
    _, _, files = FormParser().parse(BytesIO(body), "multipart/form-data", len(body), options)
    stream = files["image"].stream
    assert isinstance(stream, BytesIO)
    assert stream.getvalue() is stream.getvalue()


def test_too_many_parts() -> None:
    with pytest.raises(RequestEntityTooLarge):
        parse([image(b"")] * 6, max_form_parts=5)
    assert len(parse([image(b"")] * 5, max_form_parts=5)[1]) == 5


def test_too_much_text() -> None:
    fields: list[tuple[str, object]] = [("a", "x" * 600), ("b", "x" * 600)]
    with pytest.raises(RequestEntityTooLarge):
        parse(fields, max_form_memory_size=1000)
    assert parse([*fields[:1], image(bytes(5000))], max_form_memory_size=1000)[1] == [bytes(5000)]


BROKEN = {
    "no boundary": (b"--x\r\n\r\n", "multipart/form-data"),
    "no end": (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n1', "multipart/form-data; boundary=x"),
    "no form": (b"what is this?", "multipart/form-data; boundary=x"),
    "empty": (b"", "multipart/form-data; boundary=x"),
}


@pytest.mark.parametrize(("body", "content_type"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_form_is_an_empty_one(body: bytes, content_type: str) -> None:
    assert parse_body(body, content_type) == ({}, [], [])
