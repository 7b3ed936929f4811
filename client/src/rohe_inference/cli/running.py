"""A run over images: sends those without an outcome, keeps the journal, and prints the outcomes in the order of the images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from rohe_inference.cli.concurrency import Retries, complete_all
from rohe_inference.cli.connection import Image, SendImage
from rohe_inference.cli.exits import CommandError, ExitCode, error_of
from rohe_inference.cli.formats import OutcomeWriter
from rohe_inference.cli.journal import Journal
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photos import Photo
from rohe_inference.cli.progress import RunProgress
from rohe_inference.cli.terminal import console


@dataclass(frozen=True)
class RunLimits:
    """Bounds of a run: requests at a time, and seconds of an outage after which it ends."""

    concurrency: int
    retry_for_s: float


class OrderedWriter:
    """Passes outcomes on in the order of the images, each as soon as all before it are there."""

    def __init__(self, writer: OutcomeWriter, names: Sequence[str]) -> None:
        self._writer = writer
        self._names = names
        self._next = 0
        self._early: dict[int, Outcome] = {}

    def put(self, index: int, outcome: Outcome) -> None:
        self._early[index] = outcome
        while (following := self._early.pop(self._next, None)) is not None:
            self._writer.write(self._names[self._next], following)
            self._next += 1


class ImageRun:
    """A run of one command over its images."""

    def __init__(self, images: Sequence[Image], journal: Journal | None, limits: RunLimits, writer: OutcomeWriter) -> None:
        """`journal`: None for a run that cannot be resumed; with one, all images are photos in files."""
        self._images = images
        self._journal = journal
        self._limits = limits
        self._output = OrderedWriter(writer, [image.name for image in images])
        self._errors = console(stderr=True)

    def run(
        self, client: AbstractAsyncContextManager[Any], call: Callable[[Any], SendImage], progress: Callable[[int], RunProgress]
    ) -> ExitCode:
        """Complete the run.

        Args:
            client: open while images are sent.
            call: returns the call that sends an image with the client.
            progress: returns the display, given the number of images that had ended before.
        Raises:
            CommandError: the run ended early; the message says how to go on.
        """
        ended = {index: outcome for index, outcome in enumerate(map(self._known, self._images)) if outcome is not None}
        self._announce(len(ended))
        with progress(len(ended)) as shown:
            for index, outcome in ended.items():
                shown.failed += outcome.has_failed
                self._output.put(index, outcome)
            try:
                asyncio.run(self._send([i for i in range(len(self._images)) if i not in ended], client, call, shown))
            except KeyboardInterrupt:
                raise self._with_hint(CommandError("interrupted", ExitCode.INTERRUPTED), shown) from None
            except CommandError as error:
                raise self._with_hint(error, shown) from error
            except (BrokenPipeError, asyncio.CancelledError):
                raise
            except Exception as error:
                raise self._with_hint(error_of(error), shown) from error
        self._summarize(shown)
        return ExitCode.FAILED if shown.failed else ExitCode.OK

    async def _send(
        self,
        missing: Sequence[int],
        client: AbstractAsyncContextManager[Any],
        call: Callable[[Any], SendImage],
        progress: RunProgress,
    ) -> None:
        async with client as opened:
            send = call(opened)
            retries = Retries(self._limits.retry_for_s, progress.notice)

            async def send_one(index: int) -> Outcome:
                return await send(self._images[index], self._key(self._images[index]))

            async for index, outcome in complete_all(missing, send_one, concurrency=self._limits.concurrency, retries=retries):
                image = self._images[index]
                if self._journal is not None and isinstance(image, Photo):
                    self._journal.record(image, outcome)
                progress.advance(has_failed=outcome.has_failed)
                self._output.put(index, outcome)

    def _known(self, image: Image) -> Outcome | None:
        return self._journal.outcome(image) if self._journal is not None and isinstance(image, Photo) else None

    def _key(self, image: Image) -> str | None:
        return self._journal.idempotency_key(image) if self._journal is not None and isinstance(image, Photo) else None

    def _announce(self, ended: int) -> None:
        if self._journal is not None and ended:
            total = len(self._images)
            self._say(
                f"going on: {ended:,} of {total:,} images are done (journal {self._journal.path}; --restart sends all again)"
            )

    def _with_hint(self, error: CommandError, progress: RunProgress) -> CommandError:
        if self._journal is None:
            return error
        done = f"{progress.done:,} of {progress.total:,} images are done"
        return error.with_hint(f"{done}. The same command goes on with the others; journal: {self._journal.path}")

    def _summarize(self, progress: RunProgress) -> None:
        """Say what the run did, unless it was one image; delete the journal if nothing is left to do."""
        if progress.total > 1:
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            sent = (
                f"{progress.sent:,} sent in {progress.elapsed_s:.1f} s, {progress.rate_per_s:.0f}/s"
                if progress.sent
                else "none sent"
            )
            self._say(f"{progress.total:,} images: {progress.total - progress.failed:,} done{failed} ({sent})")
        if self._journal is None:
            return
        if progress.failed:
            self._say(f"--retry-failed sends those that failed again, --restart all; journal: {self._journal.path}")
        self._journal.complete(keep=bool(progress.failed))

    def _say(self, sentence: str) -> None:
        self._errors.print(sentence)
