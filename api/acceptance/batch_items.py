"""Checks of each item of a batch request, independent of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.acceptance.validation import ValidatedRequest
from api.forms.batch import BatchItem
from api.forms.known_fields import check_members
from api.forms.predict import METADATA_MEMBERS, ImageForm, read_image_form
from inference.domain import ImageHeader, QueueItem
from inference.errors import InferenceError, InvalidMetadata, InvalidRequest, ServiceUnavailable, shown
from inference.lifecycle.task_ids import TaskIds
from inference.settings import Settings
from inference.storage.protocol import ObjectStore, bucket_and_key, is_key

_REFERENCE_MEMBERS = METADATA_MEMBERS | {"object"}


@dataclass
class PreparedItem:
    """An item that may be accepted."""

    form: ImageForm
    checked: ValidatedRequest
    item: QueueItem
    #: False for an object that existed before the request: this service does not delete it
    is_upload: bool

    @property
    def queue(self) -> str:
        return self.checked.spec.queue


#: Checks the form of one image, and inspects the image.
Check = Callable[[ImageForm], tuple[ValidatedRequest, ImageHeader]]


class BatchItems:
    """Prepares items; an error of one item does not affect the others."""

    def __init__(self, objects: ObjectStore, ids: TaskIds, settings: Settings) -> None:
        self._objects = objects
        self._ids = ids
        self._settings = settings

    def prepare(self, sent: BatchItem, *, check: Check) -> PreparedItem | InferenceError:
        """Return the prepared item, or the error with which it is refused.

        Args:
            check: returns the validated request and the image's header, or raises.

        Raises:
            ServiceUnavailable: the object store is down, so the whole batch fails.
        """
        try:
            if not isinstance(sent.options, dict):
                raise InvalidMetadata("the item is not a JSON object", field="metadata", expected="a JSON object")
            check_members(sent.options, METADATA_MEMBERS, "metadata")
            return self._prepare_reference(sent, check) if sent.is_reference else self._prepare_upload(sent, check)
        except ServiceUnavailable:
            raise
        except InferenceError as error:
            return error.with_traceback(None)  # a traceback would keep the images' frames in memory

    def _prepare_upload(self, sent: BatchItem, check: Check) -> PreparedItem:
        form = read_image_form(sent.image, sent.content_type, sent.options)
        checked, header = check(form)
        return PreparedItem(form, checked, QueueItem(*self._ids.new(), header, form.answer), is_upload=True)

    def _prepare_reference(self, sent: BatchItem, check: Check) -> PreparedItem:
        """Prepare an object that exists already: it is read for the checks, and stays where it is stored."""
        check_members(sent.options, _REFERENCE_MEMBERS, "items")
        if "metadata" in sent.options:
            expected = '{"object": "s3://BUCKET/KEY", "shape": …}'
            raise InvalidMetadata(
                "an item has no member metadata: write the options into the item itself", field="metadata", expected=expected
            )
        key = self._key(sent.options.get("object"))
        image = self._objects.get(key, max_bytes=self._settings.api.max_body_bytes)
        form = read_image_form(image, None, sent.options)
        checked, header = check(form)
        without_bytes = dataclasses.replace(form, image=b"")  # the images of all items might not fit into memory
        task_id, _ = self._ids.new()
        return PreparedItem(without_bytes, checked, QueueItem(task_id, key, header, form.answer), is_upload=False)

    def _key(self, uri: Any) -> str:
        """The key of the object in the object store. Raises InvalidRequest."""
        buckets = self._settings.batch_buckets
        expected = f"s3://BUCKET/KEY, in {' or '.join(buckets) or 'no bucket at all'}"
        found = bucket_and_key(uri) if isinstance(uri, str) else None
        if found is None or not is_key(found[1]):
            raise InvalidRequest(f"object is {shown(uri)}", field="object", expected=expected)
        bucket, key = found
        if bucket not in buckets:
            raise InvalidRequest(f"objects of {shown(bucket)} may not be named here", field="object", expected=expected)
        return key if bucket == self._settings.uploads.bucket else f"s3://{bucket}/{key}"
