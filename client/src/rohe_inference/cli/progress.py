"""Progress of a run on stderr: a bar, the rate and the time left; nothing if stderr is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import Self

from rohe_inference.cli.terminal import console, printable


class _RateColumn(ProgressColumn):
    """Images a second over the last seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class RunProgress:
    """Counts the images of a run, and shows them while the run goes on."""

    def __init__(self, total: int, out: Console) -> None:
        """Rows on `out` go above the bar if both are terminals."""
        self.total = total
        self.done = 0
        self.failed = 0
        self._done_before = 0
        self._began = time.monotonic()
        self._said: set[str] = set()
        self._errors = console(stderr=True)
        self._is_shown = total > 1 and self._errors.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            console=out if out.is_terminal else self._errors,
            disable=not self._is_shown,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._task = self._progress.add_task("images", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def take_over(self, *, has_failed: bool) -> None:
        """Count an image of an earlier run."""
        self.done += 1
        self.failed += has_failed
        self._done_before += 1
        self._progress.update(self._task, completed=self.done)

    def advance(self, *, has_failed: bool) -> None:
        """Count an image."""
        self.done += 1
        self.failed += has_failed
        self._progress.advance(self._task)

    def notice(self, sentence: str) -> None:
        """Show a sentence about the service in place of the title; an empty one restores it."""
        if self._is_shown:
            self._progress.update(self._task, description=printable(sentence) or "images")
        elif sentence and sentence not in self._said:  # a log of hours has each once
            self._said.add(sentence)
            self._errors.print(printable(sentence))

    @property
    def text(self) -> str:
        """Count of the images that are done."""
        return f"{self.done:,} of {self.total:,} images"

    @property
    def summary(self) -> str:
        """Counts, duration and rate of the run."""
        sent, elapsed_s = self.done - self._done_before, time.monotonic() - self._began
        failed = f", {self.failed:,} failed" if self.failed else ""
        rate = f"{sent:,} sent in {elapsed_s:.1f} s, {sent / max(elapsed_s, 1e-3):.1f}/s" if sent else "none sent"
        return f"{self.total:,} images: {self.done - self.failed:,} done{failed} ({rate})"
