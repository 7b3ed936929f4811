"""Answer with the image of a task."""

from __future__ import annotations

from flask import Response

from inference.domain import ImageFormat, TaskRecord
from inference.imaging.formats import sniff

_BINARY = "application/octet-stream"
#: Media type and suffix by format. Of a raw array, the headers have shape and dtype, which its bytes do not contain.
_TYPES = {
    ImageFormat.PNG: ("image/png", "png"),
    ImageFormat.JPEG: ("image/jpeg", "jpg"),
    ImageFormat.WEBP: ("image/webp", "webp"),
    ImageFormat.NPY: (_BINARY, "npy"),
    ImageFormat.RAW: (_BINARY, "bin"),
}


def image_response(record: TaskRecord, image: bytes) -> Response:
    """Respond with the bytes as they were sent; the media type is that of their content, not of the request."""
    header = record.item.header
    is_array = header is not None and header.format is ImageFormat.RAW
    kind = ImageFormat.RAW if is_array else sniff(image) or ImageFormat.RAW
    media_type, suffix = _TYPES[kind]
    response = Response(image, mimetype=media_type)
    response.headers["Content-Disposition"] = f'inline; filename="{record.task_id}.{suffix}"'
    if header is not None and header.shape and header.dtype:
        response.headers["Array-Shape"] = ",".join(map(str, header.shape))
        response.headers["Array-Dtype"] = header.dtype
    return response
