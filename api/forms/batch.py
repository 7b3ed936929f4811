"""Fields of a batch request: many images or references to objects, each with its metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Request

from api.forms.command import check_predicts
from api.forms.json_body import read_json
from api.forms.json_image import EXPECTED_IMAGE, ImageUrl, SentImage, read_json_image
from api.forms.known_fields import IMAGE, OPTION_NAMES, PREDICT_FIELDS, check_known, check_members
from api.forms.options import merge_options, options_among
from api.forms.predict import (
    METADATA_MEMBERS,
    canonical,
    check_no_metadata,
    media_type_of,
    read_idempotency_key,
)
from api.forms.preference import Preference, read_preference
from api.forms.sent_fields import SentFields, read_sent_fields
from api.forms.spool import content_of
from inference.errors import InvalidMetadata, InvalidRequest, shown

_METADATA = "one JSON object for all images, or a list with one for each"
_BODY = f'{{"items": [{{"{IMAGE}": {EXPECTED_IMAGE}}}, …]}}'
_BODY_MEMBERS = METADATA_MEMBERS | {"items", "command"}
_ITEM_MEMBERS = METADATA_MEMBERS | {IMAGE, "object"}


@dataclass
class BatchItem:
    """One item as it was sent; its other errors are found later, and do not affect the other items."""

    #: the members of its metadata; any JSON value if the metadata is not an object
    options: Any
    image: SentImage
    #: the reason why it has no image
    error: InvalidRequest | None = None


@dataclass(frozen=True)
class BatchForm:
    """A batch request as it was sent."""

    items: tuple[BatchItem, ...]
    preference: Preference
    idempotency_key: str
    #: digest of images, references and metadata, in order
    fingerprint: str
    #: whether an image that is refused refuses the whole request
    is_all_or_none: bool = False


def read_batch_form(request: Request, *, max_items: int, max_wait_s: float) -> BatchForm:
    """Read a batch request. Raises InvalidRequest, InvalidMetadata."""
    sent = read_sent_fields(request, json_example=_BODY, max_batch_items=max_items)
    items, common = _json_items(sent, max_items) if sent.is_json else _images(sent, max_items)
    key = read_idempotency_key(request)
    preference = read_preference(request, common.get("mode"), max_wait_s)
    return BatchForm(items, preference, key, fingerprint_of(items) if key else "")


def _images(sent: SentFields, max_items: int) -> tuple[tuple[BatchItem, ...], dict[str, Any]]:
    sent.check(PREDICT_FIELDS)
    check_predicts(sent.get("command"))
    parts = sent.images
    if not parts:
        raise InvalidRequest(
            "there is no image: send each as a file of multipart/form-data, or name objects in a JSON body",
            field=IMAGE,
            expected="curl -F image=@one.jpg -F image=@two.jpg …",
        )
    _check_count(len(parts), max_items, IMAGE)
    fields = sent.together
    text = fields.get("metadata")
    metadata = read_json(text, "metadata", _METADATA) if text else {}
    common = metadata if isinstance(metadata, dict) else {}
    check_members(common, METADATA_MEMBERS, "metadata")
    common = merge_options(common, fields)
    if isinstance(metadata, dict):
        metadata = [{}] * len(parts)
    if not isinstance(metadata, list) or len(metadata) != len(parts):
        found = f"{len(metadata)} members" if isinstance(metadata, list) else "neither an object nor a list"
        raise InvalidMetadata(f"metadata has {found}, for {len(parts)} images", field="metadata", expected=_METADATA)
    _check_modes(metadata, common, "metadata")
    items = (
        BatchItem(_merged(common, own), SentImage(content_of(part.stream), media_type_of(part)))
        for part, own in zip(parts, metadata, strict=True)
    )
    return tuple(items), common


def _json_items(sent: SentFields, max_items: int) -> tuple[tuple[BatchItem, ...], dict[str, Any]]:
    check_members(sent.body, _BODY_MEMBERS, "body")
    check_known(sent.query, {"command", *OPTION_NAMES}, "a query parameter")
    for fields in (sent.body, sent.query):
        check_predicts(fields.get("command"))
    check_no_metadata(sent.body, _BODY)
    items = sent.body.get("items")
    if not isinstance(items, list) or not items:
        raise InvalidRequest("the body has no list of items", field="items", expected=_BODY)
    _check_count(len(items), max_items, "items")
    common = merge_options(options_among(sent.body), sent.query)
    _check_modes(items, common, "items")
    return tuple(_json_item(own, common) for own in items), common


def _json_item(own: Any, common: dict[str, Any]) -> BatchItem:
    """Read an item; the text of its image is removed from the body, so that it takes no memory any more."""
    if not isinstance(own, dict):
        return BatchItem(own, SentImage())
    try:
        image = _item_image(own)
    except InvalidRequest as error:
        return BatchItem(_merged(common, own), SentImage(), error.with_traceback(None))
    return BatchItem(_merged(common, own), image)


def _item_image(own: dict[str, Any]) -> SentImage:
    """Take the image out of an item. Raises InvalidRequest: the item is refused."""
    has_image, value = IMAGE in own, own.pop(IMAGE, None)
    check_members(own, _ITEM_MEMBERS, "items")
    if "metadata" in own:
        detail = "an item has no member metadata: write the options into the item itself"
        raise InvalidMetadata(detail, field="metadata", expected=_BODY)
    if has_image and "object" in own:
        raise InvalidRequest("the item has an image and an object", field=IMAGE, expected="one of the two")
    if has_image:
        return read_json_image(value)
    if "object" not in own:
        raise InvalidRequest("the item has no image", field=IMAGE, expected=EXPECTED_IMAGE)
    return SentImage(url=ImageUrl(own["object"], "object"))


def _check_count(count: int, max_items: int, field: str) -> None:
    if count > max_items:
        raise InvalidRequest(
            f"{count} images are more than a request may have", field=field, expected=f"at most {max_items} (batch.max_items)"
        )


def _check_modes(items: Iterable[Any], common: dict[str, Any], field: str) -> None:
    """Refuse an item whose mode differs from the request's: a request has one answer. Raises InvalidRequest."""
    mode = common.get("mode") or "sync"
    for number, own in enumerate(items):
        if isinstance(own, dict) and own.get("mode") not in (None, mode):
            raise InvalidRequest(
                f"item {number} has the mode {shown(own['mode'])}, and the request {shown(mode)}",
                field=f"{field}.{number}.mode",
                expected="one mode for all, as a field of its own",
            )


def _merged(common: dict[str, Any], own: Any) -> Any:
    return own if not isinstance(own, dict) else common | own if own else common


def fingerprint_of(items: Iterable[BatchItem]) -> str:
    """Return the digest of the content of a batch: images, references and metadata, in order."""
    digest = hashlib.sha256(b"batch")
    for item in items:
        digest.update(hashlib.sha256(item.image.content).digest())
        if item.image.url is not None or item.error is not None:
            digest.update(orjson.dumps([item.image.url and item.image.url.url, item.error and item.error.detail]))
        options = canonical(item.options) if isinstance(item.options, dict) else orjson.dumps(item.options)
        digest.update(hashlib.sha256(options).digest())
    return digest.hexdigest()
