"""Reading of predict requests: form fields, metadata, headers, the image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.http import parse_options_header

from api.forms.command import check_predicts
from api.forms.json_body import read_json
from api.forms.json_image import EXPECTED_IMAGE, ImageUrl, SentImage, read_json_image
from api.forms.known_fields import AS_A_FILE, IMAGE, OPTION_NAMES, PREDICT_FIELDS, check_known, check_members
from api.forms.options import merge_options, read_answer_options, read_deadline_s, read_model, read_priority, read_sinks
from api.forms.preference import Preference, read_preference
from api.forms.sent_fields import SentFields
from api.forms.spool import content_of
from api.forms.webhook import WebhookChoice, read_webhook
from inference.broker import USUAL_PRIORITY
from inference.domain import AnswerOptions
from inference.errors import InvalidMetadata, InvalidRequest
from inference.ids import read_request_id

_IDEMPOTENCY_KEY_MAX = 255

METADATA_MEMBERS = frozenset(OPTION_NAMES)
_BODY_MEMBERS = METADATA_MEMBERS | {IMAGE, "command"}
_BODY = f'{{"{IMAGE}": {EXPECTED_IMAGE}, …}}; several at /inference/batch'


@dataclass
class ImageForm:
    """One image to classify."""

    image: bytes
    content_type: str | None
    #: the image that the request names instead of sending it
    url: ImageUrl | None
    #: empty if the client sent none
    request_id: str
    model: str | None
    shape: Any
    dtype: Any
    deadline_s: float | None
    #: 0 is usual, 9 is the highest
    priority: int
    #: the sinks of the result; None: the sinks in the settings
    sinks: tuple[str, ...] | None
    #: None: the defaults
    answer: AnswerOptions | None
    #: None: the webhook in the settings
    webhook: WebhookChoice | None = field(default=None, kw_only=True)

    def request_id_of(self, task_id: str) -> str:
        """The client's request id; the task's id if the client sent none."""
        return self.request_id or task_id


@dataclass
class PredictForm(ImageForm):
    """One image to classify, and how the client wants the answer."""

    preference: Preference
    idempotency_key: str
    #: digest of image and metadata
    fingerprint: str
    #: id of the task whose image it runs again; empty for a new image
    replay_of: str = ""


def read_predict_form(request: Request, sent: SentFields, *, max_wait_s: float) -> PredictForm:
    """Read a predict request. Raises InvalidRequest, InvalidMetadata."""
    image, options = _read_json_body(sent) if sent.is_json else _read_form(sent)
    key = read_idempotency_key(request)
    return PredictForm(
        **vars(read_image_form(image.content, image.content_type, options, url=image.url)),
        preference=read_preference(request, options.get("mode"), max_wait_s),
        idempotency_key=key,
        fingerprint=_fingerprint(image, options) if key else "",
    )


def _read_form(sent: SentFields) -> tuple[SentImage, dict[str, Any]]:
    sent.check(PREDICT_FIELDS)
    fields = sent.together
    options = merge_options(_metadata(fields.get("metadata")), fields)
    return _image(sent), options


def _read_json_body(sent: SentFields) -> tuple[SentImage, dict[str, Any]]:
    """Read an image and its options; the text of the image is removed from the body, so that it takes no memory any more."""
    check_members(sent.body, _BODY_MEMBERS, "body")
    check_known(sent.query, {"command", *OPTION_NAMES}, "a query parameter")
    check_predicts(sent.get("command"))
    check_no_metadata(sent.body, _BODY)
    if IMAGE not in sent.body:
        raise InvalidRequest("the JSON body has neither an image nor a command", field=IMAGE, expected=_BODY)
    image = read_json_image(sent.body.pop(IMAGE))
    own = {name: value for name, value in sent.body.items() if name != "command"}
    return image, merge_options(own, sent.query)


def check_no_metadata(body: Mapping[str, Any], expected: str) -> None:
    """Refuse a JSON body whose options are in a member `metadata`. Raises InvalidRequest."""
    if "metadata" in body:
        detail = "the body has a member metadata: write its members into the body itself"
        raise InvalidRequest(detail, field="metadata", expected=expected)


def read_image_form(
    image: bytes, content_type: str | None, options: Mapping[str, Any], *, url: ImageUrl | None = None
) -> ImageForm:
    """Read the options of one image. Raises InvalidMetadata."""
    priority = read_priority(options.get("priority"))
    return ImageForm(
        image=image,
        content_type=content_type,
        url=url,
        request_id=read_request_id(options.get("request_id")),
        model=read_model(options.get("model")),
        shape=options.get("shape"),
        dtype=options.get("dtype"),
        deadline_s=read_deadline_s(options.get("deadline_s")),
        priority=USUAL_PRIORITY if priority is None else priority,
        sinks=read_sinks(options.get("sinks")),
        answer=read_answer_options(options),
        webhook=read_webhook(options.get("webhook")),
    )


def _metadata(text: str | None) -> dict[str, Any]:
    metadata = read_json(text, "metadata", _METADATA_EXAMPLE) if text else {}
    if not isinstance(metadata, dict):
        raise InvalidMetadata("metadata is not a JSON object", field="metadata", expected=_METADATA_EXAMPLE)
    check_members(metadata, METADATA_MEMBERS, "metadata")
    return metadata


_METADATA_EXAMPLE = 'a JSON object such as {"shape": "32,32,3", "dtype": "float32"}'


def _image(sent: SentFields) -> SentImage:
    if len(sent.images) > 1:
        raise InvalidRequest(
            f"there are {len(sent.images)} images, and this path takes one", field=IMAGE, expected="several at /inference/batch"
        )
    if not sent.images:
        raise InvalidRequest("there is no image: send it as a file of multipart/form-data", field=IMAGE, expected=AS_A_FILE)
    part = sent.images[0]
    return SentImage(content_of(part.stream), media_type_of(part))


def media_type_of(part: FileStorage) -> str | None:
    """The media type of a part, in lower case; None if the part has none."""
    return _media_type(part.content_type or "")


@lru_cache(maxsize=100)  # the images of a request usually have the same type
def _media_type(content_type: str) -> str | None:
    return parse_options_header(content_type)[0].lower() or None


def read_idempotency_key(request: Request) -> str:
    """Read the idempotency key; returns its digest, empty if there is none. Raises InvalidRequest."""
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > _IDEMPOTENCY_KEY_MAX:
        raise InvalidRequest(
            "the Idempotency-Key is too long",
            field="Idempotency-Key",
            expected=f"at most {_IDEMPOTENCY_KEY_MAX} characters",
        )
    return idempotency_digest(key) if key else ""


def idempotency_digest(key: str) -> str:
    """Return the digest of an idempotency key, with which the task store knows it."""
    return hashlib.sha256(key.encode()).hexdigest()


def _fingerprint(image: SentImage, options: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(image.content)
    if image.url is not None:
        digest.update(orjson.dumps(image.url.url))
    digest.update(canonical(options))
    return digest.hexdigest()


def canonical(options: Mapping[str, Any]) -> bytes:
    """Serialise the options that belong to the content; equal options become equal bytes."""
    content = {name: value for name, value in options.items() if name != "mode"}  # the mode concerns the answer, not the content
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
