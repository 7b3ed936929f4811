"""Forms in: text fields and files as they were sent, whatever their number, size and where the reads end."""

from __future__ import annotations

import random
import re
from io import BytesIO

import pytest
from urllib3 import encode_multipart_formdata

from api.forms.parser import FormParser, boundary_in
from inference.errors import InvalidRequest, PayloadTooLarge, UnsupportedContentEncoding


def parse(parts: list[tuple[str, object]], **limits: int) -> tuple[dict[str, list[str]], list[bytes], list[str | None]]:
    """Text fields, the content of the files named image, and their media types."""
    body, content_type = encode_multipart_formdata(parts)
    return parse_body(body, content_type, **limits)


def parse_body(body: bytes, content_type: str, **limits: int) -> tuple[dict[str, list[str]], list[bytes], list[str | None]]:
    boundary = content_type.partition("boundary=")[2]
    options = {"boundary": boundary} if boundary else {}
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
    """Files with bytes that look like the end of a part."""
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
    with pytest.raises(PayloadTooLarge, match="more than 5 parts"):
        parse([image(b"")] * 6, max_form_parts=5)
    assert len(parse([image(b"")] * 5, max_form_parts=5)[1]) == 5


def test_too_much_text() -> None:
    fields: list[tuple[str, object]] = [("metadata", "x" * 600), ("model", "x" * 600)]
    with pytest.raises(PayloadTooLarge) as caught:
        parse(fields, max_form_memory_size=1000)
    assert caught.value.field == "model"
    assert parse([*fields[:1], image(bytes(5000))], max_form_memory_size=1000)[1] == [bytes(5000)]


def test_text_that_is_sent_as_a_file_is_text_and_counts_as_such() -> None:
    sent = ("metadata", ("m.json", b"\xef\xbb\xbf{}", "application/json"))
    assert parse([sent, image(b"1")])[0] == {"metadata": ["{}"]}
    with pytest.raises(PayloadTooLarge):
        parse([("metadata", ("m.json", b"x" * 600, "application/json"))] * 2, max_form_memory_size=1000)


def test_a_part_that_no_route_has_is_not_kept() -> None:
    body, content_type = encode_multipart_formdata([("file", ("a", bytes(5000), "image/png")), ("modle", "x" * 5000)])
    options = {"boundary": content_type.partition("boundary=")[2]}
    stream = BytesIO(body)
    _, form, files = FormParser(max_form_memory_size=1000).parse(stream, "multipart/form-data", len(body), options)
    assert not form
    assert [(name, files[name].stream.read()) for name in files] == [("file", b""), ("modle", b"")]


BROKEN = {
    "no boundary": (b"--x\r\n\r\n", "multipart/form-data", "has no boundary"),
    "no end": (b"--x\r\n%(head)s\r\n\r\n1", "multipart/form-data; boundary=x", "cut off"),
    "no end of a head": (b"--x\r\nContent-Disp", "multipart/form-data; boundary=x", "cut off"),
    "no form": (b"what is this?", "multipart/form-data; boundary=x", "'x', is not in the body"),
    "empty": (b"", "multipart/form-data; boundary=x", "the body is empty"),
    "line ends": (b"--x\n%(head)s\n\n1\n--x--\n", "multipart/form-data; boundary=x", "CR LF"),
    "line ends in a head": (b"--x\r\n%(head)s\n\n1\r\n--x--\r\n", "multipart/form-data; boundary=x", "CR LF"),
    "before": (b"1--x\r\n%(head)s\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "before the first boundary"),
    "after the first": (b"--x1\r\n%(head)s\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "follow a boundary"),
    "after another": (b"--x\r\n%(head)s\r\n\r\n1\r\n--x1--", "multipart/form-data; boundary=x", "follow a boundary"),
    "header": (b"--x\r\n%(head)s\r\nwhat\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "NAME: VALUE"),
    "header name": (b"--x\r\n%(head)s\r\nw(t: 1\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "NAME: VALUE"),
    "begins folded": (b"--x\r\n 1\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "NAME: VALUE"),
    "shorter": (b"--x\r\n%(head)s\r\nContent-Length: 2\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "Content-Length"),
    "longer": (b"--x\r\n%(head)s\r\nContent-Length: 0\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "Content-Length"),
    "no length": (b"--x\r\n%(head)s\r\nContent-Length: a\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "Content-Length"),
    "no head": (b"--x\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "no Content-Disposition"),
    "no form-data": (b"--x\r\nContent-Disposition: attachment\r\n\r\n--x--", "multipart/form-data; boundary=x", "not form-data"),
    "charset": (
        b"--x\r\nContent-Disposition: form-data; name=model\r\nContent-Type: a/b; charset=hex\r\n\r\n1\r\n--x--",
        "multipart/form-data; boundary=x",
        "charset 'hex'",
    ),
    "base64": (
        b"--x\r\n%(head)s\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: Base64\r\n\r\n1\r\n--x--",
        "multipart/form-data; boundary=x",
        "Content-Transfer-Encoding 'base64'",
    ),
}


@pytest.mark.parametrize(("body", "content_type", "why"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_form_is_said(body: bytes, content_type: str, why: str) -> None:
    body = body.replace(b"%(head)s", b'Content-Disposition: form-data; name="image"; filename="a"')
    with pytest.raises(InvalidRequest, match=re.escape(why)):
        parse_body(body, content_type)


@pytest.mark.parametrize("disposition", ['form-data; name="image"; filename="a"', 'form-data; name="metadata"'])
@pytest.mark.parametrize(
    ("header", "error"),
    [("content-encoding: gzip", UnsupportedContentEncoding), ("Content-Transfer-Encoding: quoted-printable", InvalidRequest)],
)
def test_an_encoding_is_the_only_other_header(disposition: str, header: str, error: type[Exception]) -> None:
    """curl's `encoder=` writes this header."""
    body = f"--x\r\nContent-Disposition: {disposition}\r\n{header}\r\n\r\n1\r\n--x--".encode()
    with pytest.raises(error, match="the part"):
        parse_body(body, "multipart/form-data; boundary=x")


BOUNDARIES = {
    "multipart/form-data; boundary=----=_Part_1_2.3": "----=_Part_1_2.3",
    "multipart/form-data; boundary================8123==": "===============8123==",
    "multipart/form-data; boundary=a/b; charset=utf-8": "a/b",
    "multipart/form-data; charset=utf-8; BOUNDARY=a:b,(c)?d ": "a:b,(c)?d",
    "multipart/form-data; boundary = B": "B",
    "multipart/form-data; boundary=a b": "a b",
    'multipart/form-data; boundary="a; b\\"c"; charset=utf-8': 'a; b"c',
    "multipart/form-data": None,
}


@pytest.mark.parametrize(("content_type", "boundary"), BOUNDARIES.items())
def test_the_boundary_with_and_without_quotes(content_type: str, boundary: str | None) -> None:
    assert boundary_in(content_type) == boundary


def test_a_compressed_part() -> None:
    head = b'Content-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: image/png\r\nContent-Encoding: gzip'
    with pytest.raises(UnsupportedContentEncoding, match="the part image"):
        parse_body(b"--x\r\n" + head + b"\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x")


LIMITS = {
    "long header": (b"X-A: " + b"x" * 2**20, "longer than"),
    "many headers": (b"\r\n".join(b"X-%d: 1" % number for number in range(40)), "more than 32 headers"),
    "folded": (b"X-A: 1" + b"\r\n x" * 60, "folded lines"),
}


@pytest.mark.parametrize(("header", "limit"), LIMITS.values(), ids=LIMITS)
def test_which_limit_is_reached_is_said(header: bytes, limit: str) -> None:
    with pytest.raises(PayloadTooLarge, match=limit):
        parse_body(b"--x\r\n" + header + b"\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x")


def test_the_text_of_a_field_in_another_charset() -> None:
    parts = [
        b"--x\r\nContent-Disposition: form-data; name=%s\r\nContent-Type: text/plain; charset=%s\r\n\r\n%s\r\n"
        % (name.encode(), charset.encode(), "größer".encode(charset))
        for name, charset in (("metadata", "utf-16"), ("model", "iso-8859-1"), ("request_id", "UTF-8"))
    ]
    form = parse_body(b"".join(parts) + b"--x--", "multipart/form-data; boundary=x")[0]
    assert form == {"metadata": ["größer"], "model": ["größer"], "request_id": ["größer"]}


FILE_NAMES = {
    "plain": b'filename="cat.jpg"',
    "not quoted": b"filename=cat.jpg",
    "empty": b'filename=""',
    "none": b"",
    "in RFC 5987's form alone": b"filename*=UTF-8''caf%C3%A9.jpg",
    "in both forms": b"filename=\"cafe.jpg\"; filename*=UTF-8''caf%C3%A9.jpg",
    "UTF-8": 'filename="カフェ.jpg"'.encode(),
    "Latin-1": b'filename="caf\xe9.jpg"',
    "Shift JIS": 'filename="カフェ.jpg"'.encode("shift-jis"),
    "quotes": b'filename="a\\"b.jpg"',
    "quotes that are not escaped": b'filename="a"b.jpg"',
    "percent": b'filename="a%22b.jpg"',
    "a path of Windows": b'filename="C:\\photos\\"',
    "a parameter": b'filename="x; name=y.jpg"',
    "5,000 characters": b'filename="' + "カ".encode() * 5000 + b'"',
    "300,000 characters": b'filename="' + b"x" * 300_000 + b'"',
    "folded": b'\r\n filename="a.jpg"',
}


@pytest.mark.parametrize("file_name", FILE_NAMES.values(), ids=FILE_NAMES)
@pytest.mark.parametrize("content_type", [b"", b"\r\nContent-Type: image/jpeg"], ids=["no type", "type"])
def test_file_names_never_matter(file_name: bytes, content_type: bytes) -> None:
    content = b"\xff\xd8\xff\x00 a picture"
    head = b'--x\r\nContent-Disposition: form-data; name="image"; ' + file_name + content_type
    assert parse_body(head + b"\r\n\r\n" + content + b"\r\n--x--", "multipart/form-data; boundary=x")[1] == [content]


def test_a_name_in_any_way() -> None:
    for disposition in (b'form-data; name="image"', b"form-data; name=image", b'Form-Data; filename="a"; NAME="image"'):
        head = b"--x\r\ncontent-DISPOSITION: " + disposition
        assert parse_body(head + b"\r\n\r\n\x00\r\n--x--", "multipart/form-data; boundary=x")[1] == [b"\x00"], disposition


def test_folded_lines_cost_no_time_to_speak_of() -> None:
    body = b"".join(b"--x\r\nX-A: " + b"x" * 100_000 + b"\r\n y" * 20_000 + b"\r\n\r\n" for _ in range(20))
    with pytest.raises(PayloadTooLarge):
        parse_body(body, "multipart/form-data; boundary=x")


@pytest.mark.parametrize("content_type", ["image/png\rb", "image/\x01"])
def test_a_content_type_with_control_characters_is_refused(content_type: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: {content_type}'.encode()
    with pytest.raises(InvalidRequest, match="Content-Type of the part image has control"):
        parse_body(head + b"\r\n\r\nx\r\n--x--", "multipart/form-data; boundary=x")


URLENCODED = {
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), InvalidRequest, "is not text"),
    "raw numbers": (bytes(100), InvalidRequest, "is not text"),
    "no UTF-8": (b"model=%FF", InvalidRequest, "model is not text in UTF-8"),
    "too much": (b"model=" + b"x" * 2000, PayloadTooLarge, "more than 1000 bytes"),
    "too many": (b"&".join([b"a=1"] * 50), PayloadTooLarge, "more than 20 fields"),
}


@pytest.mark.parametrize(("body", "error", "why"), URLENCODED.values(), ids=URLENCODED)
def test_what_is_wrong_with_a_urlencoded_form_is_said(body: bytes, error: type[Exception], why: str) -> None:
    parser = FormParser(max_form_memory_size=1000, max_form_parts=20)
    with pytest.raises(error, match=why):
        parser.parse(BytesIO(body), "application/x-www-form-urlencoded", len(body), {})


def test_a_urlencoded_form() -> None:
    body = b"model=gr%C3%B6%C3%9Fer&request_id=&metadata=%7B%7D"
    form = FormParser().parse(BytesIO(body), "application/x-www-form-urlencoded", len(body), {})[1]
    assert form.to_dict() == {"model": "größer", "request_id": "", "metadata": "{}"}
