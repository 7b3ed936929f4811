"""What a predict request says: form fields, metadata, headers, the image."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import orjson
from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.http import parse_options_header

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.errors import InvalidMetadata, InvalidRequest, shown

_REQUEST_ID_MAX = 256
_IDEMPOTENCY_KEY_MAX = 255
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9}(?:\.\d{1,9})?)\"?")


@dataclass
class Preference:
    """How long the caller wants to wait."""

    #: seconds: None waits until the deadline, 0 answers 202 at once
    wait_s: float | None = None
    #: what of the `Prefer` header was followed
    applied: str = ""


@dataclass
class ImageForm:
    """One image to classify."""

    image: bytes
    content_type: str | None
    #: empty where the client has none
    request_id: str
    model: str | None
    shape: Any
    dtype: Any
    deadline_s: float | None
    #: 0 is usual, 9 goes first
    priority: int
    #: where the result goes; None: where the settings say
    sinks: tuple[str, ...] | None

    def request_id_of(self, task_id: str) -> str:
        """The client's own; the task's where there is none."""
        return self.request_id or task_id


@dataclass
class PredictForm(ImageForm):
    """... and how the caller wants the answer."""

    preference: Preference
    idempotency_key: str
    #: digest of image and metadata
    fingerprint: str


def read_predict_form(request: Request) -> PredictForm:
    """Raises InvalidRequest, InvalidMetadata."""
    options = _metadata(request.form.get("metadata")) | options_among(request.form)
    image, content_type = _image(request)
    key = read_idempotency_key(request)
    return PredictForm(
        **vars(read_image_form(image, content_type, options)),
        preference=read_preference(request, options.get("mode")),
        idempotency_key=key,
        fingerprint=_fingerprint(image, options) if key else "",
    )


def read_image_form(image: bytes, content_type: str | None, options: Mapping[str, Any]) -> ImageForm:
    """Raises InvalidMetadata."""
    return ImageForm(
        image=image,
        content_type=content_type,
        request_id=_request_id(options.get("request_id")),
        model=_text(options, "model"),
        shape=options.get("shape"),
        dtype=options.get("dtype"),
        deadline_s=_seconds(options, "deadline_s"),
        priority=_priority(options.get("priority")),
        sinks=_sinks(options.get("sinks")),
    )


#: Members of metadata that may come as form fields of their own.
OPTIONS = ("request_id", "model", "deadline_s", "mode", "priority", "sinks")


def options_among(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: members[name] for name in OPTIONS if name in members}


def read_json(text: str | bytes, field: str, expected: str) -> Any:
    """Raises InvalidMetadata."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidMetadata(f"{field} is not JSON: {error}", field=field, expected=expected) from error
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise InvalidMetadata(f"{field} is nested too deeply", field=field, expected=expected) from error
    return document


def _metadata(text: str | None) -> dict[str, Any]:
    metadata = read_json(text, "metadata", _METADATA_EXAMPLE) if text else {}
    if not isinstance(metadata, dict):
        raise InvalidMetadata("metadata is not a JSON object", field="metadata", expected=_METADATA_EXAMPLE)
    return metadata


_METADATA_EXAMPLE = 'a JSON object such as {"shape": "32,32,3", "dtype": "float32"}'


def _image(request: Request) -> tuple[bytes, str | None]:
    part = request.files.get("image")
    if part is None:
        what = "image is a plain field" if "image" in request.form else "there is no image"
        raise InvalidRequest(
            f"{what}: send it as a file of multipart/form-data", field="image", expected="curl -F image=@photo.jpg …"
        )
    return content_of(part), media_type_of(part)


def content_of(part: FileStorage) -> bytes:
    """The bytes of an uploaded file, without a copy where they lie in memory."""
    stream = part.stream
    return stream.getvalue() if isinstance(stream, BytesIO) else stream.read()


def media_type_of(part: FileStorage) -> str | None:
    return _media_type(part.content_type or "")


@lru_cache(maxsize=100)  # the images of a request mostly have one
def _media_type(content_type: str) -> str | None:
    return parse_options_header(content_type)[0].lower() or None


def _request_id(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int) or len(str(value)) > _REQUEST_ID_MAX:
        raise InvalidMetadata(
            "request_id is not a short text",
            field="metadata.request_id",
            expected=f"at most {_REQUEST_ID_MAX} characters",
        )
    return str(value)


def _text(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidMetadata(f"{name} is not a text", field=f"metadata.{name}", expected="a text")
    return value or None


def _seconds(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 < seconds < math.inf:
        raise InvalidMetadata(
            f"{name} is not a number of seconds: {shown(value)}", field=f"metadata.{name}", expected="a number over 0"
        )
    return seconds


def _priority(value: Any) -> int:
    try:
        priority = int(value or USUAL_PRIORITY)
    except (TypeError, ValueError):
        priority = -1
    if isinstance(value, bool | float) or not USUAL_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise InvalidMetadata(
            f"priority is {value!r}",
            field="metadata.priority",
            expected=f"a whole number from {USUAL_PRIORITY} (usual) to {HIGHEST_PRIORITY} (goes first)",
        )
    return priority


def _sinks(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidMetadata(
            "sinks is not a list of names", field="metadata.sinks", expected='a list such as ["kafka"], or [] for none'
        )
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def read_preference(request: Request, mode: Any) -> Preference:
    """RFC 7240: `Prefer: respond-async`, `Prefer: wait=N`, both; `mode=async` in the form or the query says the first.

    Raises InvalidRequest: there is no such mode.
    """
    mode = request.args.get("mode", "sync") if mode is None else mode
    if mode not in ("sync", "async"):
        raise InvalidRequest(f"there is no mode {shown(mode)}", field="mode", expected="sync or async")
    preferred = [part.strip().lower() for line in request.headers.getlist("Prefer") for part in line.split(",")]
    respond_async = "respond-async" in preferred
    wait = next(filter(None, map(_WAIT.fullmatch, preferred)), None)
    applied = ", ".join((["respond-async"] if respond_async else []) + ([wait.group(0)] if wait else []))
    if wait:
        return Preference(float(wait.group(1)), applied)
    return Preference(0.0 if respond_async or mode == "async" else None, applied)


def read_idempotency_key(request: Request) -> str:
    """Its digest, empty where there is none. Raises InvalidRequest."""
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > _IDEMPOTENCY_KEY_MAX:
        raise InvalidRequest(
            "the Idempotency-Key is too long",
            field="Idempotency-Key",
            expected=f"at most {_IDEMPOTENCY_KEY_MAX} characters",
        )
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _fingerprint(image: bytes, options: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(image)
    digest.update(canonical(options))
    return digest.hexdigest()


def canonical(options: Mapping[str, Any]) -> bytes:
    """What of the options is content, the same for the same content."""
    content = {name: value for name, value in options.items() if name != "mode"}  # how to wait is no content
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
