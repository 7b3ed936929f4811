"""A run over photos: sends those without an outcome in groups, keeps the journal, and prints outcomes in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rohe_inference import AsyncClient
from rohe_inference.cli.concurrency import Retries, complete_all
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_async_client
from rohe_inference.cli.exits import CommandError, ExitCode, error_of
from rohe_inference.cli.formats import OutcomeWriter
from rohe_inference.cli.group_calls import GroupCalls, read_photos
from rohe_inference.cli.journal import Group, Journal
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photos import Photo
from rohe_inference.cli.progress import RunProgress
from rohe_inference.cli.terminal import console
from rohe_inference.options import TaskOptions

#: bytes of images in one request, if it is more than one image: the service takes 32 MiB by default
_MAX_GROUP_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        task: options of each task.
        waits: whether the run waits for results, or only submits.
        concurrency: requests at a time.
        batch_size: most images in a request.
        retry_for_s: duration of an outage after which the run ends.
        retry_failed: images that failed in an earlier run are sent again.
    """

    task: TaskOptions
    waits: bool
    concurrency: int
    batch_size: int
    retry_for_s: float
    retry_failed: bool


class OrderedWriter:
    """Passes outcomes on in the order of the photos, each as soon as all before it are there."""

    def __init__(self, writer: OutcomeWriter, photos: Sequence[Photo]) -> None:
        self._writer = writer
        self._photos = photos
        self._place = {photo.identity: index for index, photo in enumerate(photos)}
        self._next = 0
        self._early: dict[int, Outcome] = {}

    def put(self, photo: Photo, outcome: Outcome) -> None:
        """Take an outcome, and write all that are next."""
        self._early[self._place[photo.identity]] = outcome
        while (following := self._early.pop(self._next, None)) is not None:
            self._writer.write(self._photos[self._next].name, following)
            self._next += 1


class PhotoRun:
    """A run of one command over its photos."""

    def __init__(self, photos: Sequence[Photo], journal: Journal, options: RunOptions, writer: OutcomeWriter) -> None:
        self._photos = {photo.identity: photo for photo in photos}
        self._journal = journal
        self._options = options
        self._output = OrderedWriter(writer, photos)
        self._errors = console(stderr=True)

    def run(self, login: Login, progress: RunProgress) -> ExitCode:
        """Complete the run.

        Raises:
            CommandError: the run ended early; the message says how to go on.
        """
        try:
            self._take_over(progress)
            with progress:
                asyncio.run(self._complete(login, progress))
            self._summarize(progress)
        except KeyboardInterrupt:
            raise self._with_hint(CommandError("interrupted", ExitCode.INTERRUPTED), progress) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            raise self._with_hint(error_of(error), progress) from error
        finally:
            self._journal.close()
        return ExitCode.FAILED if progress.failed else ExitCode.OK

    def _take_over(self, progress: RunProgress) -> None:
        """Take the outcomes of an earlier run."""
        for photo in self._photos.values():
            outcome = self._journal.outcome(photo)
            if outcome is None:
                continue
            if outcome.has_failed and self._options.retry_failed:
                self._journal.forget(photo)
                continue
            progress.take_over(has_failed=outcome.has_failed)
            self._output.put(photo, outcome)
        if progress.done:
            self._say(f"going on: {progress.text} are done (journal {self._journal.path}; --restart sends all again)")

    async def _complete(self, login: Login, progress: RunProgress) -> None:
        async with open_async_client(login, self._options.concurrency) as client:
            retries = Retries(self._options.retry_for_s, progress.notice)
            async for _ in complete_all(
                self._groups(progress),
                lambda group: self._complete_group(client, group, progress),
                concurrency=self._options.concurrency,
                retries=retries,
            ):
                pass  # outcomes are taken as they come

    def _groups(self, progress: RunProgress) -> Iterator[Group]:
        """Yield the photos that an earlier run left open, then the others in new groups, each noted when its turn comes."""
        in_groups: set[str] = set()
        for group in self._journal.open_groups():
            if group.batch_id is not None or self._photos.keys() >= set(group.photos):
                in_groups |= set(self._journal.open_photos(group))
                yield group
        waiting = [
            photo
            for identity, photo in self._photos.items()
            if identity not in in_groups and self._journal.outcome(photo) is None
        ]
        for photos in _cut(waiting, self._options.batch_size):
            readable = [photo for photo in photos if not self._take_unreadable(photo, progress)]
            if readable:
                yield self._journal.begin(readable)

    async def _complete_group(self, client: AsyncClient, group: Group, progress: RunProgress) -> None:
        calls = GroupCalls(client, self._options.task, waits=self._options.waits)
        if group.batch_id is None:
            data = await asyncio.to_thread(read_photos, [self._photos[identity] for identity in group.photos])
            batch = await calls.submit(data, self._journal.idempotency_key(group))
            if isinstance(batch, Outcome):
                return self._take_group(group, {0: batch}, progress)
            self._journal.accept(group, batch.batch_id)
            self._take_group(group, calls.outcomes(batch), progress)
        while self._photos.keys() & set(self._journal.open_photos(group)):
            self._take_group(group, await calls.wait(group), progress)
        return None

    def _take_group(self, group: Group, outcomes: Mapping[int, Outcome], progress: RunProgress) -> None:
        """Take the outcomes of a group, by the place of the photo in it, each once."""
        is_open = self._photos.keys() & set(self._journal.open_photos(group))
        for index, outcome in outcomes.items():
            if group.photos[index] in is_open:
                self._take(self._photos[group.photos[index]], outcome, progress)

    def _take(self, photo: Photo, outcome: Outcome, progress: RunProgress) -> None:
        self._journal.record(photo, outcome)
        progress.advance(has_failed=outcome.has_failed)
        self._output.put(photo, outcome)

    def _take_unreadable(self, photo: Photo, progress: RunProgress) -> bool:
        """Return whether a photo cannot be read; that is its outcome."""
        try:
            photo.check_readable()
        except OSError as error:
            detail = f"the file cannot be read: {error.strerror or error}"
            self._take(photo, Outcome("unreadable", error={"code": "unreadable_file", "detail": detail}), progress)
            return True
        return False

    def _with_hint(self, error: CommandError, progress: RunProgress) -> CommandError:
        if error.exit_code == ExitCode.REFUSED and not progress.done:
            self._journal.complete(keep=False)  # the request was wrong: there is nothing to go on with
            return error
        if self._journal.path is None or (error.exit_code == ExitCode.UNREACHABLE and not progress.done):
            return error
        return error.with_hint(
            f"{progress.text} are done. The same command goes on with the others; journal: {self._journal.path}"
        )

    def _summarize(self, progress: RunProgress) -> None:
        """Print the run's result, and delete the journal if nothing is left to do."""
        if progress.total > 1:
            self._say(progress.summary)
        if progress.failed and self._journal.path is not None:
            self._say(f"--retry-failed sends those that failed again, --restart all; journal: {self._journal.path}")
        self._journal.complete(keep=bool(progress.failed))

    def _say(self, sentence: str) -> None:
        self._errors.print(sentence)


def _cut(photos: Sequence[Photo], batch_size: int) -> Iterator[list[Photo]]:
    """Yield groups of photos, bounded in number and bytes."""
    group: list[Photo] = []
    size = 0
    for photo in photos:
        if group and (len(group) == batch_size or size + photo.size > _MAX_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(photo)
        size += photo.size
    if group:
        yield group
