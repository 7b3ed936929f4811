"""Checks of each item of a batch request, independent of the others."""

from __future__ import annotations

from dataclasses import dataclass

from api.acceptance.named_images import NamedImages
from api.acceptance.uploads import Upload
from api.acceptance.validation import RequestValidator, ValidatedRequest
from api.forms.batch import BatchItem
from api.forms.known_fields import check_members
from api.forms.predict import METADATA_MEMBERS, ImageForm, read_image_form
from api.forms.preference import Preference
from inference.access import Caller
from inference.domain import ImageHeader, QueueItem
from inference.errors import InferenceError, InvalidMetadata, ServiceUnavailable
from inference.lifecycle.task_ids import TaskIds
from inference.rollout.runtime_config import ConfigSnapshot


@dataclass
class PreparedItem:
    """An item that may be accepted."""

    form: ImageForm
    checked: ValidatedRequest
    item: QueueItem
    #: the image if it is in the object store already; None: it is to be stored
    stored: Upload | None
    #: bytes of the image as it came
    image_bytes: int

    @property
    def queue(self) -> str:
        return self.checked.spec.queue


class BatchItems:
    """Prepares items; an error of one item does not affect the others."""

    def __init__(self, validator: RequestValidator, named: NamedImages, ids: TaskIds) -> None:
        self._validator = validator
        self._named = named
        self._ids = ids

    def prepare(
        self, sent: BatchItem, *, preference: Preference, snapshot: ConfigSnapshot, caller: Caller
    ) -> PreparedItem | InferenceError:
        """Return the prepared item, or the error with which it is refused.

        Args:
            caller: its limits hold, and its webhook is the default.

        Raises:
            ServiceUnavailable: the object store is down, so the whole batch fails.
        """
        try:
            return self._prepare(sent, preference, snapshot, caller)
        except ServiceUnavailable:
            raise
        except InferenceError as error:
            return error.with_traceback(None)  # a traceback would keep the images' frames in memory

    def _prepare(self, sent: BatchItem, preference: Preference, snapshot: ConfigSnapshot, caller: Caller) -> PreparedItem:
        form = _read(sent)
        checked = self._validator.check(form, preference, snapshot, caller)

        def inspect(form: ImageForm) -> ImageHeader:
            return self._validator.inspect(form, checked.spec)

        if form.url is None:
            item = QueueItem(*self._ids.new(), inspect(form), form.answer)
            return PreparedItem(form, checked, item, stored=None, image_bytes=len(form.image))
        task_id, key = self._ids.new()
        image = self._named.take(form, key, inspect, caller)
        item = QueueItem(task_id, image.key, image.header, form.answer)
        return PreparedItem(form, checked, item, stored=image.upload, image_bytes=image.size)


def _read(sent: BatchItem) -> ImageForm:
    """Read the form of an item. Raises InferenceError: the item is refused."""
    if sent.error is not None:
        raise sent.error
    if not isinstance(sent.options, dict):
        raise InvalidMetadata("the item is not a JSON object", field="metadata", expected="a JSON object")
    check_members(sent.options, METADATA_MEMBERS, "metadata")
    return read_image_form(sent.image.content, sent.image.content_type, sent.options, url=sent.image.url)
