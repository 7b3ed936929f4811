"""Routes of uploads. POST /uploads: get a URL to put an image to; PUT /uploads/{upload_id}: that URL if it is one of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request

from api.components import components
from api.forms.query import check_query, read_query
from api.forms.sent_fields import check_encoding
from api.security.caller import caller
from api.server.http_messages import count_no_body
from api.views.responses import json_response
from api.views.urls import absolute
from inference.errors import InvalidRequest
from inference.lifecycle.task_object import time_text

blueprint = Blueprint("uploads", __name__, url_prefix="/uploads")

_READ_BYTES = 2**18


@blueprint.post("")
def create_upload() -> Response:
    """Create an upload: the URL to put an image to, and the URL by which requests name it after that."""
    check_query()
    if request.content_length or "Transfer-Encoding" in request.headers:
        raise InvalidRequest(
            "this request has no body", field="body", expected="no body; the image goes to the URL of the answer"
        )
    components().operation_rate.count(caller())
    upload = components().client_uploads.create(caller())
    document: dict[str, Any] = {
        "method": "PUT",
        "url": upload.url or absolute(f"/uploads/{upload.upload_id}?signature={upload.signature}"),
        "headers": {"Content-Type": "application/octet-stream"},
        "image": {"url": upload.uri},
        "expires_at": time_text(upload.expires_at_ms),
        "max_bytes": upload.max_bytes,
    }
    return json_response(document, 201)


@blueprint.put("/<upload_id>")
def put_upload(upload_id: str) -> Response:
    """Take the bytes of an upload, as they come, into the folder of the images."""
    check_query({"signature"})
    check_encoding(request)
    uploads = components().client_uploads
    count_no_body(request.environ)
    request.max_content_length = uploads.max_bytes + 1  # in place of api.max_body_bytes
    size = uploads.store(upload_id, read_query().get("signature", ""), _chunks(), size=request.content_length)
    return json_response({"bytes": size})


def _chunks() -> Iterator[bytes]:
    while chunk := request.stream.read(_READ_BYTES):
        yield chunk
