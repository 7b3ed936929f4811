"""Fields of a request, from its form or JSON body and from its query: each may occur once, and the route must know it.

Body and query are checked in this order:

    body ──Content-Encoding, Content-Type──▶ form or JSON object ──┐
    query ─────────────────────────────────────────────────────────┴──▶ SentFields ──check──▶ the route's own reading
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request
from werkzeug.datastructures import FileStorage, MultiDict

from api.forms.json_body import check_no_json, count_values, read_json
from api.forms.known_fields import AS_A_FILE, IMAGE, PREDICT_FIELDS, check_known, unknown_field
from api.forms.options import is_same
from api.forms.parser import decoded_text
from api.forms.query import read_query
from api.forms.spool import read_spooled
from inference.errors import InvalidRequest, PayloadTooLarge, UnsupportedContentEncoding, shown, shown_name

#: Fields for which an empty input of an HTML form means "not given". An empty `sinks` is a choice: no sink.
_MAY_BE_EMPTY = PREDICT_FIELDS - {"sinks"}
NO_IMAGE_HERE = "this path takes commands, not images"
#: First bytes of a body, enough to recognise JSON.
_READ_BYTES = 2**12
#: Enough for every member that an item of a batch may have, and for members of the client's own.
_JSON_BYTES_PER_ITEM = 2**14
_MIN_JSON_LIMIT_BYTES = 2**20
#: A longer body, which has images in base64, may have a value for this many bytes of the limit.
_JSON_BYTES_PER_VALUE = 2**4
_FORMS = {"multipart/form-data", "application/x-www-form-urlencoded"}


@dataclass
class SentFields:
    """The fields of one request as they were sent."""

    #: fields of the form or the JSON body
    body: dict[str, Any]
    query: Mapping[str, str]
    #: parts named image; a part that may be a plain text field has no file name
    images: list[FileStorage]
    #: parts of a form with names that no route knows
    unknown: list[FileStorage]
    is_json: bool

    def get(self, name: str) -> Any:
        """The value from body or query; None if it was not sent. Raises InvalidRequest: body and query differ in it."""
        self._check_agreement(name)
        return self.body.get(name, self.query.get(name))

    @property
    def together(self) -> dict[str, Any]:
        """Fields of body and query together. Raises InvalidRequest: they differ in a field."""
        for name in self.query.keys() & self.body.keys():
            self._check_agreement(name)
        return {**self.query, **self.body}

    def _check_agreement(self, name: str) -> None:
        if name in self.query and name in self.body and not is_same(name, self.query[name], self.body[name]):
            raise InvalidRequest(
                f"{name} is {shown(self.body[name])} in the body and {shown(self.query[name])} in the query",
                field=name,
                expected="one of the two",
            )

    def check(self, known: Collection[str]) -> None:
        """Refuse fields that this route does not read. Raises InvalidRequest."""
        if self._has_image_as_text and not self._has_array:
            raise InvalidRequest(
                "image is a plain field: send it as a file of multipart/form-data", field=IMAGE, expected=AS_A_FILE
            )
        files = [part for part in self.unknown if part.filename is not None]
        if files and "metadata" in known and not self.images:
            sent = f"the part {shown(files[0].name)}" if files[0].name else "a part without a name"
            detail = f"there is no image: {sent} is a file, and the image goes into the part image"
            raise InvalidRequest(detail, field=IMAGE, expected=AS_A_FILE)
        for part in self.unknown:
            raise unknown_field(part.name or "", known)
        check_known(self.body, known)
        check_known(self.query, known, "a query parameter")

    @property
    def _has_image_as_text(self) -> bool:
        return IMAGE in self.body or IMAGE in self.query or any(part.filename is None for part in self.images)

    @property
    def _has_array(self) -> bool:
        """Whether shape and dtype are given: then the image is an array, whose bytes may look like text."""
        fields = self.together
        metadata = fields.get("metadata", "")
        is_file = IMAGE not in self.body and IMAGE not in self.query
        return is_file and all(name in fields or f'"{name}"' in metadata for name in ("shape", "dtype"))

    def check_no_images(self, detail: str = "a command has no image") -> None:
        """Refuse images. Raises InvalidRequest."""
        if self.images or self._has_image_as_text:
            raise InvalidRequest(detail, field=IMAGE, expected="the command's fields alone; images go to POST /inference")


def read_sent_fields(request: Request, *, json_example: str, max_batch_items: int, has_images: bool = True) -> SentFields:
    """Read body and query of a request.

    Args:
        json_example: a correct JSON body, for the error.
        max_batch_items: maximum items of a batch, which determine the maximum size of a JSON body.
        has_images: whether the route takes images, for the error.

    Raises:
        InvalidRequest: the body is neither a form nor a JSON object, or a field occurs twice.
        UnsupportedContentEncoding: the body is compressed.
        PayloadTooLarge: the body exceeds a limit.
    """
    query = _given(read_query())
    check_encoding(request)
    if request.is_json:
        body = _json_object(request, json_example, max_batch_items, has_images=has_images)
        return SentFields(body, query, [], [], is_json=True)
    if request.mimetype not in _FORMS:
        _check_empty(request, None if has_images else json_example)
    form, files = request.form, request.files
    unknown = [part for name in files if name != IMAGE for part in files.getlist(name)]
    return SentFields(_given(_once(form)), query, files.getlist(IMAGE), unknown, is_json=False)


def _given(fields: dict[str, str]) -> dict[str, str]:
    """Remove the fields that are empty inputs of a form."""
    if "" not in fields.values():
        return fields
    return {name: value for name, value in fields.items() if value or name not in _MAY_BE_EMPTY}


def _once(fields: MultiDict[str, str]) -> dict[str, str]:
    """Convert the fields to a dict. Raises InvalidRequest: a field occurs twice."""
    once = fields.to_dict()
    if len(once) != sum(1 for _ in fields.items(multi=True)):
        name, values = next((name, values) for name, values in fields.lists() if len(values) > 1)
        detail = f"the form field {shown_name(name)} was sent {len(values)} times"
        raise InvalidRequest(detail, field=shown_name(name), expected="once")
    return once


def check_encoding(request: Request) -> None:
    """Refuse a compressed body. Raises UnsupportedContentEncoding."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedContentEncoding(
            f"the body has the Content-Encoding {shown(encoding)}", field="Content-Encoding", expected="a body without one"
        )


def _check_empty(request: Request, example: str | None) -> None:
    """Refuse a body that is not a form. Raises InvalidRequest.

    Args:
        example: a correct body for a route without images; None for a route with images.
    """
    media_type = request.mimetype
    if not request.content_length and "Transfer-Encoding" not in request.headers:
        return
    check_no_json(request.stream.read(_READ_BYTES), shown(media_type) if media_type else "")
    is_image = media_type.startswith("image/") or media_type == "application/octet-stream"
    if not media_type:
        detail = "the body has no Content-Type"
    elif is_image:
        rule = "it must be a part of a form" if example is None else NO_IMAGE_HERE
        detail = f"the image is the whole body ({shown(media_type)}), and {rule}"
    else:
        detail = f"the body is {shown(media_type)}, and not a form"
    if example is not None:
        raise InvalidRequest(detail, field=IMAGE if is_image else "Content-Type", expected=example)
    raise InvalidRequest(detail, field=IMAGE, expected=AS_A_FILE)


def _json_object(request: Request, example: str, max_items: int, *, has_images: bool) -> dict[str, Any]:
    content, charset = _json_text(request, max_items, has_images=has_images), request.mimetype_params.get("charset")
    text = decoded_text(content, charset, "body") if charset else content
    document = read_json(text, "body", example, error=InvalidRequest)
    if not isinstance(document, dict):
        raise InvalidRequest("the body is not a JSON object", field="body", expected=example)
    return document


def _json_text(request: Request, max_items: int, *, has_images: bool) -> bytes:
    """Read the body. Raises PayloadTooLarge: to parse JSON with more values takes seconds, during which other requests wait."""
    limit = max(_MIN_JSON_LIMIT_BYTES, _JSON_BYTES_PER_ITEM * max_items)
    expected = "images as files of multipart/form-data: curl -F image=@photo.jpg …"
    if has_images:
        content = read_spooled(request.stream)  # at most api.max_body_bytes
        max_values = limit // _JSON_BYTES_PER_VALUE
        if len(content) > limit and count_values(content, max_values + 1) > max_values:
            detail = f"a body in JSON of more than {limit} bytes has at most {max_values} values"
            raise PayloadTooLarge(detail, field="body", expected=expected)
        return content
    is_announced = (request.content_length or 0) > limit
    content = b"" if is_announced else request.stream.read(limit + 1)
    if is_announced or len(content) > limit:
        raise PayloadTooLarge(f"a body in JSON has at most {limit} bytes", field="body", expected=expected)
    return content
