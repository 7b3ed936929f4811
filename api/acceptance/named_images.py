"""Images that requests name by a URL, in place of sending them.

    an object of batch.allowed_buckets     checked; stays where it is, and is classified as it is when its task runs
    an upload of POST /uploads             copied to the upload of its task, and checked; of the caller's owner alone
    a URL of HTTP                          fetched, checked, and stored as the upload of its task

The upload of a task belongs to it, however its bytes came: it is deleted if the task is not accepted, and kept as any other.
Only admins may name the objects that the service stores for tasks; other objects of these buckets are for all owners.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from api.acceptance.fetched_images import ImageFetcher
from api.acceptance.thread_pool import BoundedThreadPool
from api.acceptance.uploads import MAX_STORE_S, NamedObject, Upload, Uploads
from api.forms.json_image import ImageUrl
from api.forms.predict import ImageForm
from inference.access import Caller
from inference.domain import ImageHeader
from inference.errors import InvalidMetadata, InvalidRequest, ObjectNotFound, ServiceUnavailable, shown
from inference.settings import Settings
from inference.storage.client_uploads import belongs_to, is_incoming
from inference.storage.protocol import ObjectStore, bucket_and_key, is_key, is_of_task, too_large

#: Concurrent fetches from other hosts, whose slowness must not delay the object store's transfers. Each holds an image.
_FETCHES = 8

#: Checks the image of a form for its model.
Inspect = Callable[[ImageForm], ImageHeader]


@dataclass(frozen=True)
class NamedImage:
    """An image that is in the object store."""

    key: str
    header: ImageHeader | None
    upload: Upload
    #: bytes
    size: int


class NamedImages:
    """Finds and checks the images that requests name."""

    def __init__(self, objects: ObjectStore, uploads: Uploads, settings: Settings) -> None:
        self._objects = objects
        self._uploads = uploads
        self._settings = settings
        self._fetcher = ImageFetcher(settings.image_urls, max_bytes=settings.api.max_body_bytes)
        self._fetches = BoundedThreadPool(_FETCHES)

    def pool_for(self, urls: Iterable[ImageUrl | None]) -> BoundedThreadPool:
        """Return the pool in which to call `take` for these URLs: transfers of the object store, or fetches from other hosts."""
        return self._fetches if any(url is not None and url.is_fetched for url in urls) else self._uploads.transfers

    def take_within(self, timeout_s: float, form: ImageForm, upload_key: str, inspect: Inspect, caller: Caller) -> NamedImage:
        """Call `take` with a time limit, among the other transfers or fetches of this process.

        Raises:
            ServiceUnavailable: also if it takes too long.
        """
        try:
            (image,) = self.pool_for([form.url]).map(
                lambda form: self.take(form, upload_key, inspect, caller), [form], timeout_s=min(timeout_s, MAX_STORE_S)
            )
        except TimeoutError as error:
            raise takes_too_long() from error
        return image

    def take(self, form: ImageForm, upload_key: str, inspect: Inspect, caller: Caller) -> NamedImage:
        """Check the image that the form names; its bytes are not kept, since the images of a batch might not fit into memory.

        Args:
            upload_key: key of the upload of the task, for an image that does not stay where it is.

        Raises:
            InferenceError: it may not be named, is missing, or does not fit the model; nothing of it remains stored.
        """
        if form.url is None:
            raise ValueError("the form names no image")
        if form.url.is_fetched:
            return self._fetch(form, form.url, upload_key, inspect)
        key = self._key(form.url, caller)
        if is_incoming(key):
            if not (caller.is_admin or belongs_to(key, caller.owner)):
                raise _no_upload(form.url.field)
            return self._take_upload(form, form.url.field, key, upload_key, inspect)
        try:
            data = self._objects.get(key, max_bytes=self._settings.api.max_body_bytes)
        except ObjectNotFound as error:
            error.field = form.url.field
            raise
        return NamedImage(key, inspect(dataclasses.replace(form, image=data)), NamedObject(), len(data))

    def _fetch(self, form: ImageForm, url: ImageUrl, upload_key: str, inspect: Inspect) -> NamedImage:
        began = time.perf_counter()
        data = self._fetcher.fetch(url)
        header = inspect(dataclasses.replace(form, image=data))
        metadata = {"request-id": form.request_id} if form.request_id else {}
        self._objects.put(upload_key, data, metadata=metadata)
        upload = self._uploads.of_stored(upload_key, store_ms=(time.perf_counter() - began) * 1000)
        return NamedImage(upload_key, header, upload, len(data))

    def _take_upload(self, form: ImageForm, field: str, key: str, upload_key: str, inspect: Inspect) -> NamedImage:
        began = time.perf_counter()
        try:
            size = self._check_size(key)
            self._objects.copy(key, upload_key)
        except ObjectNotFound as error:
            raise _no_upload(field) from error
        upload = self._uploads.of_stored(upload_key, store_ms=(time.perf_counter() - began) * 1000)
        try:
            return NamedImage(upload_key, self._inspect_copy(form, upload_key, inspect), upload, size)
        except BaseException:
            upload.discard()
            raise

    def _inspect_copy(self, form: ImageForm, key: str, inspect: Inspect) -> ImageHeader | None:
        """Inspect the copy, which no client can replace any more; None if it is so large that the worker does that."""
        max_body_bytes = self._settings.api.max_body_bytes
        if self._check_size(key) <= max_body_bytes:
            return inspect(dataclasses.replace(form, image=self._objects.get(key)))
        for name, value in (("shape", form.shape), ("dtype", form.dtype)):
            if value is not None:
                detail = f"{name} is not possible with an upload of more than {max_body_bytes} bytes (api.max_body_bytes)"
                raise InvalidMetadata(detail, field=f"metadata.{name}", expected=f"no {name}: a .npy file says it itself")
        return None

    def _check_size(self, key: str) -> int:
        """Return the size of an upload. Raises ObjectNotFound, PayloadTooLarge."""
        size, max_bytes = self._objects.size(key), self._settings.uploads.max_bytes
        if size > max_bytes:
            raise too_large("the upload", size, max_bytes)
        return size

    def _key(self, url: ImageUrl, caller: Caller) -> str:
        """The key of the object in the object store. Raises InvalidRequest."""
        buckets = self._settings.batch_buckets
        expected = f"s3://BUCKET/KEY, in {' or '.join(buckets) or 'no bucket at all'}"
        found = bucket_and_key(url.url) if isinstance(url.url, str) else None
        if found is None or not is_key(found[1]):
            raise InvalidRequest(f"{url.field} is {shown(url.url)}", field=url.field, expected=expected)
        bucket, key = found
        is_ours = bucket == self._settings.uploads.bucket
        is_allowed = bucket in buckets and (caller.is_admin or not (is_ours and is_of_task(key)))
        if not is_allowed and not (is_ours and is_incoming(key)):
            raise InvalidRequest(f"{shown(url.url)} may not be named here", field=url.field, expected=expected)
        return key if is_ours else f"s3://{bucket}/{key}"


def _no_upload(field: str) -> ObjectNotFound:
    """Create the error for an upload that has no object, or is another owner's."""
    detail = "there is no such upload: its bytes have not come, or it has expired"
    return ObjectNotFound(detail, field=field, expected="an upload of POST /uploads")


def takes_too_long() -> ServiceUnavailable:
    """Create the error for images that do not come in time."""
    return ServiceUnavailable("the store or host of the image takes too long", retry_after_s=5)
