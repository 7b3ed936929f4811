"""What a batch request says: many images, or where they lie, each with its metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Request

from api.predict_form import (
    Preference,
    canonical,
    content_of,
    media_type_of,
    options_among,
    read_idempotency_key,
    read_json,
    read_preference,
)
from inference.errors import InvalidMetadata, InvalidRequest

_METADATA = "one JSON object for all images, or a list with one for each"
_BODY = '{"items": [{"object": "s3://BUCKET/KEY"}, …]}'


@dataclass
class BatchItem:
    """One item as it was sent: what is wrong with it is found later, and is its own fault alone."""

    #: the members of its metadata; anything, where it is no JSON object
    options: Any
    image: bytes = b""
    content_type: str | None = None
    #: the image is the object that `options` names
    is_reference: bool = False


@dataclass(frozen=True)
class BatchForm:
    items: tuple[BatchItem, ...]
    preference: Preference
    idempotency_key: str
    #: digest of images, references and metadata, in order
    fingerprint: str


def read_batch_form(request: Request, *, max_items: int) -> BatchForm:
    """Raises InvalidRequest, InvalidMetadata."""
    is_json = request.mimetype == "application/json"
    items, mode = _references(request, max_items) if is_json else _images(request, max_items)
    key = read_idempotency_key(request)
    return BatchForm(items, read_preference(request, mode), key, _fingerprint(items) if key else "")


def _images(request: Request, max_items: int) -> tuple[tuple[BatchItem, ...], Any]:
    parts = request.files.getlist("image")
    if not parts:
        raise InvalidRequest(
            "there is no image: send each as a file of multipart/form-data, or name objects in a JSON body",
            field="image",
            expected="curl -F image=@one.jpg -F image=@two.jpg …",
        )
    _check_count(len(parts), max_items, "image")
    text = request.form.get("metadata")
    metadata = read_json(text, "metadata", _METADATA) if text else {}
    common = options_among(request.form)
    if isinstance(metadata, dict):
        common = metadata | common
        metadata = [{}] * len(parts)
    if not isinstance(metadata, list) or len(metadata) != len(parts):
        found = f"{len(metadata)} members" if isinstance(metadata, list) else "neither an object nor a list"
        raise InvalidMetadata(f"metadata has {found}, for {len(parts)} images", field="metadata", expected=_METADATA)
    items = (
        BatchItem(_merged(common, own), content_of(part), media_type_of(part)) for part, own in zip(parts, metadata, strict=True)
    )
    return tuple(items), common.get("mode")


def _references(request: Request, max_items: int) -> tuple[tuple[BatchItem, ...], Any]:
    body = read_json(request.get_data(cache=False), "body", _BODY)
    sent = body.get("items") if isinstance(body, dict) else None
    if not isinstance(sent, list) or not sent:
        raise InvalidRequest("the body has no list of items", field="items", expected=_BODY)
    _check_count(len(sent), max_items, "items")
    common = options_among(body)
    return tuple(BatchItem(_merged(common, own), is_reference=True) for own in sent), common.get("mode")


def _check_count(count: int, max_items: int, field: str) -> None:
    if count > max_items:
        raise InvalidRequest(
            f"{count} images are more than a request may have", field=field, expected=f"at most {max_items} (batch.max_items)"
        )


def _merged(common: dict[str, Any], own: Any) -> Any:
    return common | own if isinstance(own, dict) else own


def _fingerprint(items: Iterable[BatchItem]) -> str:
    digest = hashlib.sha256(b"batch")
    for item in items:
        digest.update(hashlib.sha256(item.image).digest())
        options = canonical(item.options) if isinstance(item.options, dict) else orjson.dumps(item.options)
        digest.update(hashlib.sha256(options).digest())
    return digest.hexdigest()
