"""Many images in batches, each result as it comes: how images are divided, and the calls for one part of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rohe_inference.batches import Batch, BatchItem, CompletedImage
from rohe_inference.calls import Calls
from rohe_inference.errors import InvalidRequest
from rohe_inference.images import ImageSource, size_of
from rohe_inference.options import Item
from rohe_inference.steps import Load, Steps
from rohe_inference.submissions import PREFER_WAIT, LoadedImage, as_item, batch_request, is_url, load

#: Bytes of images in one request, as far as they are known before: half of the service's usual maximum.
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One image: its place among all images, as the caller gave it, and with its options."""

    index: int
    image: ImageSource
    item: Item


@dataclass(frozen=True)
class Chunk:
    """Images of one request; `key` is its Idempotency-Key, None for a new one."""

    entries: Sequence[Entry]
    key: str | None


def chunks_of(
    images: Iterable[ImageSource | Item], *, batch_size: int, key: str | None, done: Collection[int]
) -> Iterator[Chunk]:
    """Divide images into requests, always the same images in the same way; parts that are done are left out."""
    waiting: list[Entry] = []
    size = 0

    def chunk() -> Iterator[Chunk]:
        if any(entry.index not in done for entry in waiting):
            yield Chunk(tuple(waiting), f"{key}-{waiting[0].index}-{waiting[-1].index}" if key else None)

    for index, image in enumerate(images):
        item = as_item(image)
        bytes_more = size_of(item.image)
        is_full = len(waiting) == batch_size or size + bytes_more > _MAX_BYTES
        if waiting and (is_full or is_url(item) != is_url(waiting[0].item)):
            yield from chunk()
            waiting, size = [], 0
        waiting.append(Entry(index, item.image, item))
        size += bytes_more
    yield from chunk()


class Completion:
    """Calls for chunks of one run.

    Args:
        options: of all images.
        done: indices whose outcomes are not wanted.
    """

    def __init__(self, calls: Calls, options: Mapping[str, Any], done: Collection[int]) -> None:
        self._calls = calls
        self._options = options
        self._done = done

    def complete(self, chunk: Chunk, emit: Callable[[CompletedImage], None]) -> Steps[None]:
        """Classify the images of a chunk; `emit` gets the outcome of each."""
        read: list[tuple[Entry, LoadedImage | Exception]] = yield Load(lambda: [(entry, _load(entry)) for entry in chunk.entries])
        for entry, image in read:
            if isinstance(image, Exception):
                problem = {"status": 400, "code": "unreadable_image", "detail": str(image), "field": "image"}
                self._refuse(entry, problem, emit)
        found = [(entry, image) for entry, image in read if isinstance(image, LoadedImage)]
        if found:
            entries, loaded = zip(*found, strict=True)
            yield from self._send(entries, loaded, self._calls.headers(chunk.key, PREFER_WAIT), emit)

    def _send(
        self,
        entries: Sequence[Entry],
        loaded: Sequence[LoadedImage],
        headers: Mapping[str, str],
        emit: Callable[[CompletedImage], None],
    ) -> Steps[None]:
        """Send one request; two with half of the images each if the service finds it too large."""
        try:
            yield from self._classify(entries, loaded, headers, emit)
        except InvalidRequest as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            if len(entries) == 1:
                self._refuse(entries[0], error.raw, emit)
                return
            half = len(entries) // 2
            for name, part in (("a", slice(None, half)), ("b", slice(half, None))):
                own = {**headers, "Idempotency-Key": headers["Idempotency-Key"] + name}
                yield from self._send(entries[part], loaded[part], own, emit)

    def _classify(
        self,
        entries: Sequence[Entry],
        loaded: Sequence[LoadedImage],
        headers: Mapping[str, str],
        emit: Callable[[CompletedImage], None],
    ) -> Steps[None]:
        request = batch_request(loaded, headers, self._options)
        batch = yield from self._calls.ask(request, Batch.from_json)
        if not batch.is_ended:
            batch = yield from self._calls.wait_batch(batch, None)
        for entry, item in zip(entries, batch.items, strict=True):
            self._emit(entry, item, emit)

    def _refuse(self, entry: Entry, problem: Mapping[str, Any], emit: Callable[[CompletedImage], None]) -> None:
        members = dict.fromkeys(("task_id", "request_id", "model", "result"))
        self._emit(entry, BatchItem.from_json({"status": "refused", "error": problem, **members}, 0), emit)

    def _emit(self, entry: Entry, item: BatchItem, emit: Callable[[CompletedImage], None]) -> None:
        if entry.index not in self._done:
            emit(CompletedImage(entry.index, entry.image, item))


def _load(entry: Entry) -> LoadedImage | Exception:
    """Read an image, or return why it cannot be read."""
    try:
        return load(entry.item)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow has all three for broken files
        return error
