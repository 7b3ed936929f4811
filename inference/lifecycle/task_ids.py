"""Ids of the tasks that the API creates. They contain the time of creation and the task store.

    0              12  13       26        32
    milliseconds  | 7 | random | the store |      hexadecimal

An id is a UUID of version 7 (RFC 9562, section 5.7) whose last 24 bits are the tag of the task store. So uploads can be listed by
age, and the search for uploads without a task skips the uploads of other task stores.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from inference.errors import ServiceUnavailable
from inference.runtime.ttl_cache import TtlCache
from inference.storage.protocol import upload_key
from inference.task_store.stores import SubmissionStore

#: Hexadecimal digits.
_TIME_LENGTH, _TAG_LENGTH = 12, 6
_ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")
#: Seconds for which the store's tag is cached.
_TAG_AGE_S = 60.0


class TaskIds:
    """Creates ids, and the keys of their uploads.

    Args:
        max_age_s: maximum age of an id when its task is accepted; older uploads may count as uploads without a task.
        clock: seconds since the epoch.
    """

    def __init__(self, store: SubmissionStore, *, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        self._tag = TtlCache(store.get_tag, max_age_s=_TAG_AGE_S)
        self._max_age_s = max_age_s
        self._clock = clock

    def new(self) -> tuple[str, str]:
        """Create a task id and the key of its upload. Raises ServiceUnavailable."""
        at_ms = round(self._clock() * 1000)
        task_id = new_task_id(at_ms, self._tag())
        return task_id, upload_key(task_id, datetime.fromtimestamp(at_ms / 1000, UTC))

    def check_age(self, task_id: str) -> None:
        """Raise ServiceUnavailable if the id is too old for its task to be accepted."""
        if self._clock() - made_at_ms(task_id) / 1000 > self._max_age_s:
            raise ServiceUnavailable("the request took too long before it could be accepted", retry_after_s=5)


def new_task_id(at_ms: int, tag: str) -> str:
    """Create an id.

    Args:
        at_ms: current time, milliseconds since the epoch.
        tag: tag of the task store (`SubmissionStore.get_tag`).
    """
    random = int.from_bytes(os.urandom(7))
    variant = 8 | random >> 12 & 3
    return f"{at_ms:012x}7{random & 0xFFF:03x}{variant:x}{random >> 14 & 0xFFFFFFFFF:09x}{tag:0>{_TAG_LENGTH}}"


def belongs_to(task_id: str, tag: str) -> bool:
    """Whether an API created this id for a task in the store with this tag."""
    return _ID.fullmatch(task_id) is not None and task_id.endswith(tag)


def made_at_ms(task_id: str) -> int:
    """Return the time of creation of an id, milliseconds since the epoch."""
    return int(task_id[:_TIME_LENGTH], 16)


def prefix_at(at_ms: int) -> str:
    """Return a lower bound, in text order, of the ids that are created from `at_ms` on."""
    return f"{at_ms:012x}"
