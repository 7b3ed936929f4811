"""Each item of a batch request, checked by itself."""

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
    #: False for an object that was there before, and is not ours to remove
    is_upload: bool

    @property
    def queue(self) -> str:
        return self.checked.spec.queue


#: Checks one image's form, and inspects the image.
Check = Callable[[ImageForm], tuple[ValidatedRequest, ImageHeader]]


class BatchItems:
    """Prepares items; what is wrong with one is its own fault alone."""

    def __init__(self, objects: ObjectStore, ids: TaskIds, settings: Settings) -> None:
        self._objects = objects
        self._ids = ids
        self._settings = settings

    def prepare(self, sent: BatchItem, *, check: Check) -> PreparedItem | InferenceError:
        """The item, or why it is refused.

        Args:
            check: gives what the form asks for and the image's header, or raises.

        Raises:
            ServiceUnavailable: a store that is down is nobody's fault, and everyone's.
        """
        try:
            if not isinstance(sent.options, dict):
                raise InvalidMetadata("the item is not a JSON object", field="metadata", expected="a JSON object")
            check_members(sent.options, METADATA_MEMBERS, "metadata")
            return self._named(sent, check) if sent.is_reference else self._sent(sent, check)
        except ServiceUnavailable:
            raise
        except InferenceError as error:
            return error.with_traceback(None)  # which has the frames of the images, and they the answer with this error

    def _sent(self, sent: BatchItem, check: Check) -> PreparedItem:
        form = read_image_form(sent.image, sent.content_type, sent.options)
        checked, header = check(form)
        return PreparedItem(form, checked, QueueItem(*self._ids.new(), header), is_upload=True)

    def _named(self, sent: BatchItem, check: Check) -> PreparedItem:
        """An object that is there already: it is read to be checked, and stays where it is."""
        check_members(sent.options, _REFERENCE_MEMBERS, "items")
        if "metadata" in sent.options:
            expected = '{"object": "s3://BUCKET/KEY", "shape": …}'
            raise InvalidMetadata("metadata is no member of an item: its members are", field="metadata", expected=expected)
        key = self._key(sent.options.get("object"))
        image = self._objects.get(key, max_bytes=self._settings.api.max_body_bytes)
        form = read_image_form(image, None, sent.options)
        checked, header = check(form)
        without_bytes = dataclasses.replace(form, image=b"")  # those of all items might not fit into memory
        task_id, _ = self._ids.new()
        return PreparedItem(without_bytes, checked, QueueItem(task_id, key, header), is_upload=False)

    def _key(self, uri: Any) -> str:
        """As the object store has it. Raises InvalidRequest."""
        buckets = self._settings.batch_buckets
        expected = f"s3://BUCKET/KEY, in {' or '.join(buckets) or 'no bucket at all'}"
        found = bucket_and_key(uri) if isinstance(uri, str) else None
        if found is None or not is_key(found[1]):
            raise InvalidRequest(f"object is {shown(uri)}", field="object", expected=expected)
        bucket, key = found
        if bucket not in buckets:
            raise InvalidRequest(f"objects of {shown(bucket)} may not be named here", field="object", expected=expected)
        return key if bucket == self._settings.uploads.bucket else f"s3://{bucket}/{key}"
