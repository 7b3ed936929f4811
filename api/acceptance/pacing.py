"""Pace of owners: requests of an owner whose tasks fill a queue wait before they are checked, while others use that queue.

Owners take turns in the queue, but not for the processor time that accepting a task needs. An owner that sends as fast as it can
would take that time from the others, although its tasks only wait longer. Each of its requests waits for a tenth of the time that
its waiting tasks need, so that it sends them about as fast as they run. Its work ends no later: the pause begins only when its
tasks fill the workers' batches.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inference.errors import RateLimited
from inference.task_store import QueueLoad

#: Pause of a request as a share of the time that the owner's waiting tasks need; longest pause.
_PAUSE_SHARE, _MAX_PAUSE_S = 0.1, 1.0
#: Longest pause of a batch whose own tasks need longer than `_MAX_PAUSE_S`: a client that gives up would send it again.
_MAX_BATCH_PAUSE_S = 10.0
#: Requests of one owner that wait in this process at a time.
_MAX_PAUSED = 100
#: Time after the last request of another owner in which it counts as a user of the queue, seconds.
_ACTIVE_S = 5.0


@dataclass
class _Users:
    """The owner of the last request to a queue, and of the last request before that came from another owner."""

    last: str = ""
    previous_at_s: float = float("-inf")
    last_at_s: float = float("-inf")

    def note(self, owner: str, now_s: float) -> None:
        if owner != self.last:
            self.last, self.previous_at_s = owner, self.last_at_s
        self.last_at_s = now_s


@dataclass
class _Paused:
    """Requests of one owner that wait, and the bytes of the images in their bodies."""

    requests: int = 0
    image_bytes: int = 0


class OwnerPacing:
    """Lets requests wait.

    Args:
        load: returns the figures of a queue; those of a broker without turns have no shares, and then nothing waits.
        max_held_tasks: number of tasks that a worker holds at most.
        max_image_bytes: limit for the images in the requests of one owner that wait: others have room for their bodies too.
        clock: returns seconds.
    """

    def __init__(
        self,
        load: Callable[[str], QueueLoad],
        *,
        max_held_tasks: int,
        max_image_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._load = load
        self._max_held_tasks = max_held_tasks
        self._max_image_bytes = max_image_bytes
        self._clock = clock
        self._sleep = sleep
        self._users: dict[str, _Users] = defaultdict(_Users)
        #: by owner
        self._paused: dict[str, _Paused] = defaultdict(_Paused)

    def wait(self, queue: str, owner: str, count: int = 1, *, image_bytes: int = 0) -> None:
        """Wait as long as a request with `count` tasks of `owner` has to; not at all without an owner.

        Args:
            image_bytes: bytes of the images in its body.

        Raises:
            RateLimited: too many requests of the owner wait already.
        """
        if not owner:
            return
        pause_s = self._pause_s(queue, owner, count)
        if pause_s:
            with self._place(owner, image_bytes):
                self._sleep(pause_s)

    def _pause_s(self, queue: str, owner: str, count: int) -> float:
        users, now_s = self._users[queue], self._clock()
        users.note(owner, now_s)
        load = self._load(queue)
        own = load.shares.get(owner, 0)
        if own <= self._max_held_tasks:
            return 0.0
        if len(load.shares) == 1 and now_s - users.previous_at_s > _ACTIVE_S:
            return 0.0
        if not load.ended:
            return _MAX_PAUSE_S
        task_s = load.busy_s / load.ended
        longest_s = min(max(_MAX_PAUSE_S, count * task_s), _MAX_BATCH_PAUSE_S)
        return min(longest_s, _PAUSE_SHARE * own * task_s)

    @contextmanager
    def _place(self, owner: str, image_bytes: int) -> Iterator[None]:
        paused = self._paused[owner]
        expected = self._exceeded_limit(paused, image_bytes)
        if expected:
            reason = "tasks of this owner fill the queue, others use it too, and too many requests of this owner wait"
            raise RateLimited(reason, expected=expected, retry_after_s=_MAX_PAUSE_S)
        paused.requests += 1
        paused.image_bytes += image_bytes
        try:
            yield
        finally:
            paused.requests -= 1
            paused.image_bytes -= image_bytes
            if not paused.requests:
                del self._paused[owner]

    def _exceeded_limit(self, paused: _Paused, image_bytes: int) -> str:
        """Return the limit that does not let another request wait, as text; empty if it may. One alone always may."""
        if paused.requests >= _MAX_PAUSED:
            return f"at most {_MAX_PAUSED} requests at a time"
        if paused.requests and paused.image_bytes + image_bytes > self._max_image_bytes:
            return f"images of at most {self._max_image_bytes} bytes at a time"
        return ""
