"""Many calls of the service at a time, which go on after an overload or an outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from rohe_inference.cli.exits import ServiceUnreachable

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_PAUSE_S = 1.0


class Outage(Exception):
    """The service cannot serve a call now, for a reason that goes away: no connection, 503, 429."""

    def __init__(self, sentence: str, *, retry_after_s: float | None = None, is_overload: bool = False) -> None:
        """`is_overload`: the service works, and says when to come back."""
        super().__init__(sentence)
        self.retry_after_s = retry_after_s
        self.is_overload = is_overload


class Retries:
    """Decide how long calls are tried again.

    An overload: as often as it takes. An outage: for `retry_for_s`, and only once the service has answered.
    """

    def __init__(self, retry_for_s: float, notice: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`notice` gets a sentence for the user when the service stops working; an empty text when it works again."""
        self._retry_for_s = retry_for_s
        self._notice = notice
        self._clock = clock
        self._has_answered = False
        self._down_since: float | None = None
        self._said = ""

    def answered(self) -> None:
        self._has_answered = True
        self._down_since = None
        self._say("")

    async def pause(self, outage: Outage) -> None:
        """Wait before the next try. Raises ServiceUnreachable if it has been down for too long."""
        if outage.is_overload:
            self._has_answered = True
            self._say("the service is busy; waiting for room")
            await asyncio.sleep(outage.retry_after_s or _PAUSE_S)
            return
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        if not self._has_answered:
            raise ServiceUnreachable(str(outage))
        if now - self._down_since >= self._retry_for_s:
            raise ServiceUnreachable(f"{outage} (tried again for {self._retry_for_s:g} s)")
        self._say(f"the service does not work; trying again for up to {self._retry_for_s:g} s")
        await asyncio.sleep(min(outage.retry_after_s or _PAUSE_S, max(0.1, self._retry_for_s)))

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._notice(sentence)


async def complete_all(
    items: Iterable[Item], call: Callable[[Item], Awaitable[Answer]], *, concurrency: int, retries: Retries
) -> AsyncIterator[tuple[Item, Answer]]:
    """Call the service for each item, `concurrency` at a time, and yield the answers as they come.

    Raises:
        ServiceUnreachable: `retries` says so. Other errors of `call` are raised too; calls in progress are given up then.
    """

    async def completed(item: Item) -> tuple[Item, Answer]:
        while True:
            try:
                answer = await call(item)
            except Outage as outage:  # noqa: PERF203 - each try is a request
                await retries.pause(outage)
            else:
                retries.answered()
                return item, answer

    waiting = iter(items)
    running: set[asyncio.Task[tuple[Item, Answer]]] = set()
    done: set[asyncio.Task[tuple[Item, Answer]]] = set()
    try:
        while True:
            while len(running) < concurrency and (next_item := next(waiting, None)) is not None:
                running.add(asyncio.create_task(completed(next_item)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *done, return_exceptions=True)
