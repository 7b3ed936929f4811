"""Many images in batches, each result as it comes: how images are divided, and the calls for one part of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from json import loads
from typing import Any

from rohe_inference.batches import Batch, BatchItem, BatchProgress, CompletedImage
from rohe_inference.calls import Calls, batch_path, read_document
from rohe_inference.errors import InvalidRequest, UnexpectedAnswer
from rohe_inference.images import ImageSource, size_of
from rohe_inference.messages import Reply
from rohe_inference.options import Item, known_options
from rohe_inference.steps import Load, Pause, Steps
from rohe_inference.submissions import PREFER_WAIT, WAIT_S, LoadedImage, as_item, batch_request, is_url, load
from rohe_inference.transport import JSON_LINES

#: Bytes of images in one request, as far as they are known before: half of the service's usual maximum.
_MAX_BYTES = 16 * 1024 * 1024
#: Pause before a batch is asked for again, in seconds: a service that stops ends all waits.
_PAUSE_S = 0.25
#: Items as they end; a document if the service does not stream them.
_ACCEPT = f"{JSON_LINES}, application/json;q=0.9"


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
    """Divide images into requests, always the same images in the same way; parts that are done are left out.

    Args:
        batch_size: most images of a request.
        key: begins the Idempotency-Key of each request, which goes on with the indices of its first and last image.
        done: indices of images whose outcomes are not wanted.
    """
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
        self._options = known_options(options)
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
            yield from self._send(entries, loaded, self._calls.headers(chunk.key, {**PREFER_WAIT, "Accept": _ACCEPT}), emit)

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
        answers = BatchAnswers(lambda item: self._emit(entries[item.index], item, emit))
        request = replace(batch_request(loaded, headers, self._options), receive=answers.receive)
        while True:
            reply = yield from self._calls.retries.exchange(request)
            progress = answers.finish(reply)
            if progress.is_ended:
                return
            yield Pause(_PAUSE_S)
            request = self._calls.request("GET", batch_path(progress), {"wait": f"{WAIT_S:g}"}, patience_s=WAIT_S)
            request = replace(request, headers={**request.headers, "Accept": _ACCEPT}, receive=answers.receive)

    def _refuse(self, entry: Entry, problem: Mapping[str, Any], emit: Callable[[CompletedImage], None]) -> None:
        members = dict.fromkeys(("task_id", "request_id", "model", "result"))
        self._emit(entry, BatchItem.from_json({"status": "refused", "error": problem, **members}, 0), emit)

    def _emit(self, entry: Entry, item: BatchItem, emit: Callable[[CompletedImage], None]) -> None:
        if entry.index not in self._done:
            emit(CompletedImage(entry.index, entry.image, item))


class BatchAnswers:
    """Answers about one batch, of several requests: each item that has ended is taken once."""

    def __init__(self, take: Callable[[BatchItem], None]) -> None:
        self._take = take
        self._taken: set[int] = set()
        self._progress: BatchProgress | None = None

    def receive(self, line: str) -> None:
        """Take a line of an answer in JSON Lines: an item, or the counts at the end. Raises UnexpectedAnswer."""
        try:
            json = loads(line)
            if "index" in json:
                self._take_once(BatchItem.from_json(json, json["index"]))
            else:
                self._progress = BatchProgress.from_json(json)
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"the line is not as this client knows it ({error!r}): {line[:200]}") from error

    def finish(self, reply: Reply) -> BatchProgress:
        """Take the end of an answer; gives the state of the batch. Raises ApiError, UnexpectedAnswer."""
        reply.check()
        if reply.media_type != JSON_LINES:
            batch = read_document(reply, Batch.from_json)
            for item in batch.items:
                self._take_once(item)
            return batch
        if self._progress is None:
            raise UnexpectedAnswer("the answer ends before the counts of the batch")
        return self._progress

    def _take_once(self, item: BatchItem) -> None:
        if item.is_ended and item.index not in self._taken:
            self._taken.add(item.index)
            self._take(item)


def _load(entry: Entry) -> LoadedImage | Exception:
    """Read an image, or return why it cannot be read."""
    try:
        return load(entry.item)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow has all three for broken files
        return error
