"""What a predict request says: form fields, metadata, headers, the image."""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Request

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.errors import InvalidMetadata, InvalidRequest, shown

_REQUEST_ID_MAX = 256
_IDEMPOTENCY_KEY_MAX = 255
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9}(?:\.\d{1,9})?)\"?")


@dataclass(frozen=True)
class Preference:
    """How long the caller wants to wait."""

    #: seconds: None waits until the deadline, 0 answers 202 at once
    wait_s: float | None = None
    #: what of the `Prefer` header was followed
    applied: str = ""


@dataclass(frozen=True)
class PredictForm:
    """One image to classify, and how the caller wants the answer."""

    image: bytes
    content_type: str | None
    request_id: str
    model: str | None
    shape: Any
    dtype: Any
    deadline_s: float | None
    #: 0 is usual, 9 goes first
    priority: int
    #: where the result goes; None: where the settings say
    sinks: tuple[str, ...] | None
    preference: Preference
    idempotency_key: str
    #: digest of image and metadata
    fingerprint: str


def read_predict_form(request: Request) -> PredictForm:
    """Raises InvalidRequest, InvalidMetadata."""
    metadata = _metadata(request.form.get("metadata"))
    options = metadata | {name: request.form[name] for name in _FORM_OPTIONS if name in request.form}
    image, content_type = _image(request)
    return PredictForm(
        image=image,
        content_type=content_type,
        request_id=_request_id(options.get("request_id")),
        model=_text(options, "model"),
        shape=metadata.get("shape"),
        dtype=metadata.get("dtype"),
        deadline_s=_seconds(options, "deadline_s"),
        priority=_priority(options.get("priority")),
        sinks=_sinks(options.get("sinks")),
        preference=_preference(request, options),
        idempotency_key=_idempotency_key(request),
        fingerprint=_fingerprint(image, options),
    )


#: Members of metadata that may come as form fields of their own.
_FORM_OPTIONS = ("request_id", "model", "deadline_s", "mode", "priority", "sinks")


def _metadata(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        metadata = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidMetadata(f"metadata is not JSON: {error}", field="metadata", expected=_METADATA_EXAMPLE) from error
    if not isinstance(metadata, dict):
        raise InvalidMetadata("metadata is not a JSON object", field="metadata", expected=_METADATA_EXAMPLE)
    try:
        orjson.dumps(metadata)
    except orjson.JSONEncodeError as error:
        raise InvalidMetadata("metadata is nested too deeply", field="metadata", expected=_METADATA_EXAMPLE) from error
    return metadata


_METADATA_EXAMPLE = 'a JSON object such as {"shape": "32,32,3", "dtype": "float32"}'


def _image(request: Request) -> tuple[bytes, str | None]:
    part = request.files.get("image")
    if part is None:
        what = "image is a plain field" if "image" in request.form else "there is no image"
        raise InvalidRequest(
            f"{what}: send it as a file of multipart/form-data", field="image", expected="curl -F image=@photo.jpg …"
        )
    return part.stream.read(), part.mimetype or None


def _request_id(value: Any) -> str:
    if value is None or value == "":
        return uuid.uuid4().hex
    if not isinstance(value, str | int) or len(str(value)) > _REQUEST_ID_MAX:
        raise InvalidMetadata(
            "request_id is not a short text",
            field="metadata.request_id",
            expected=f"at most {_REQUEST_ID_MAX} characters",
        )
    return str(value)


def _text(options: dict[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidMetadata(f"{name} is not a text", field=f"metadata.{name}", expected="a text")
    return value or None


def _seconds(options: dict[str, Any], name: str) -> float | None:
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


def _preference(request: Request, options: dict[str, Any]) -> Preference:
    """RFC 7240: `Prefer: respond-async`, `Prefer: wait=N`, both; `mode=async` says the first in a form."""
    mode = options.get("mode", request.args.get("mode", "sync"))
    if mode not in ("sync", "async"):
        raise InvalidRequest(f"there is no mode {shown(mode)}", field="mode", expected="sync or async")
    preferred = [part.strip().lower() for line in request.headers.getlist("Prefer") for part in line.split(",")]
    respond_async = "respond-async" in preferred
    wait = next(filter(None, map(_WAIT.fullmatch, preferred)), None)
    applied = ", ".join((["respond-async"] if respond_async else []) + ([wait.group(0)] if wait else []))
    if wait:
        return Preference(float(wait.group(1)), applied)
    return Preference(0.0 if respond_async or mode == "async" else None, applied)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > _IDEMPOTENCY_KEY_MAX:
        raise InvalidRequest(
            "the Idempotency-Key is too long",
            field="Idempotency-Key",
            expected=f"at most {_IDEMPOTENCY_KEY_MAX} characters",
        )
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _fingerprint(image: bytes, options: dict[str, Any]) -> str:
    digest = hashlib.sha256(image)
    content = {name: value for name, value in options.items() if name != "mode"}  # how to wait is no content
    digest.update(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()
