"""Images that requests name by a URL, in place of sending them.

s3://BUCKET/KEY of batch.allowed_buckets ──▶ checked, stays where it is
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from api.acceptance.uploads import MAX_STORE_S, NamedObject, Upload, Uploads
from api.forms.json_image import ImageUrl
from api.forms.predict import ImageForm
from inference.domain import ImageHeader
from inference.errors import InvalidRequest, ServiceUnavailable, shown
from inference.settings import Settings
from inference.storage.protocol import ObjectStore, bucket_and_key, is_key

#: Checks the image of a form for its model.
Inspect = Callable[[ImageForm], ImageHeader]


@dataclass(frozen=True)
class NamedImage:
    """An image that is in the object store."""

    key: str
    header: ImageHeader | None
    upload: Upload


class NamedImages:
    """Finds and checks the images that requests name."""

    def __init__(self, objects: ObjectStore, uploads: Uploads, settings: Settings) -> None:
        self._objects = objects
        self._uploads = uploads
        self._settings = settings

    def take_within(self, timeout_s: float, form: ImageForm, inspect: Inspect) -> NamedImage:
        """Call `take` with a time limit, among the other transfers of this process.

        Raises:
            ServiceUnavailable: also if it takes too long.
        """
        try:
            (image,) = self._uploads.transfers.map(
                lambda form: self.take(form, inspect), [form], timeout_s=min(timeout_s, MAX_STORE_S)
            )
        except TimeoutError as error:
            raise ServiceUnavailable("the object store takes too long", retry_after_s=5) from error
        return image

    def take(self, form: ImageForm, inspect: Inspect) -> NamedImage:
        """Check the image that the form names; its bytes are not kept, since the images of a batch might not fit into memory.

        Raises:
            InferenceError: it may not be named, is missing, or does not fit the model.
        """
        if form.url is None:
            raise ValueError("the form names no image")
        key = self._key(form.url)
        data = self._objects.get(key, max_bytes=self._settings.api.max_body_bytes)
        header = inspect(dataclasses.replace(form, image=data))
        return NamedImage(key, header, NamedObject())

    def _key(self, url: ImageUrl) -> str:
        """The key of the object in the object store. Raises InvalidRequest."""
        buckets = self._settings.batch_buckets
        expected = f"s3://BUCKET/KEY, in {' or '.join(buckets) or 'no bucket at all'}"
        found = bucket_and_key(url.url) if isinstance(url.url, str) else None
        if found is None or not is_key(found[1]):
            raise InvalidRequest(f"{url.field} is {shown(url.url)}", field=url.field, expected=expected)
        bucket, key = found
        if bucket not in buckets:
            raise InvalidRequest(f"objects of {shown(bucket)} may not be named here", field=url.field, expected=expected)
        return key if bucket == self._settings.uploads.bucket else f"s3://{bucket}/{key}"
