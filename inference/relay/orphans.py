"""Uploads that no task came of: an answer of a server got lost, or the API process ended, before the task was accepted.

What is refused is deleted at once. This is for the rest: each upload is looked at once, when its task must have been accepted or
never will be, and while no record can be gone. How long that is the task store notes: each process may let records live for
another time, and did so before its settings were changed. Older uploads stay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from inference.errors import ServiceUnavailable
from inference.lifecycle.expiry_log import some_of
from inference.lifecycle.task_ids import belongs_to, prefix_at
from inference.storage.protocol import ObjectStore, day_prefix
from inference.task_store.protocol import RecordLife
from inference.task_store.stores import MaintenanceStore

logger = logging.getLogger(__name__)

#: Uploads that one look reads, and seconds until the next one while there are more. A folder is read as a whole by each look.
_LOOK_SIZE, _PAUSE_S = 1000, 1.0
_LOOK_SIZE_OF_FOLDERS = 20_000
#: Ids that one call of the task store is about.
_IDS = 1000
#: Share of `orphan_after_s` between two looks, and the longest pause, seconds.
_INTERVAL_SHARE, _MAX_INTERVAL_S = 0.2, 60.0
#: Share of the records' shortest life that counts: clocks differ.
_LIFE_SHARE = 0.9


class Orphans:
    """Deletes them. Several may run.

    Args:
        after_s: age at which an upload without a task is one.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: MaintenanceStore,
        objects: ObjectStore,
        *,
        after_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._objects = objects
        self._after_s = after_s
        self._clock = clock
        self._size = _LOOK_SIZE_OF_FOLDERS if objects.is_local else _LOOK_SIZE
        #: uploads up to this key have been looked at, and those of the days before this one
        self._seen, self._day = "", date.min
        self._is_told = False

    def look(self) -> float:
        """Look at the next uploads; gives the seconds until the next call. Raises ServiceUnavailable: it begins there then."""
        return _PAUSE_S if self.look_once() else min(_MAX_INTERVAL_S, self._after_s * _INTERVAL_SHARE)

    def look_once(self) -> bool:
        """Look at the next uploads; whether there may be more. As `look`."""
        tag, life = self._store.tag(), self._store.record_life()
        self._tell(life)
        now_s = self._clock()
        oldest = _key_at(max(now_s - life.shortest_s * _LIFE_SHARE, life.since_s))
        end, last_day = _key_at(now_s - self._after_s)
        self._seen, self._day = max((self._seen, self._day), oldest)
        while self._day <= last_day:
            prefix = day_prefix(self._day)
            keys = self._objects.keys(prefix, after=self._seen, limit=self._size)
            ids = [key.removeprefix(prefix) for key in keys if key < end]
            ours = [task_id for task_id in ids if belongs_to(task_id, tag)]
            for start in range(0, len(ours), _IDS):
                self._delete(prefix, self._store.unknown(tag, ours[start : start + _IDS]))
            if len(ids) == self._size:
                self._seen = keys[-1]
                return True
            self._day += timedelta(days=1)
        self._seen, self._day = end, last_day
        return False

    def _tell(self, life: RecordLife) -> None:
        is_too_short = life.shortest_s * _LIFE_SHARE <= self._after_s
        if is_too_short and not self._is_told:
            logger.warning("uploads without a task stay: uploads.orphan_after_s is no less than task_store.result_ttl_s")
        self._is_told = is_too_short

    def _delete(self, prefix: str, task_ids: list[str]) -> None:
        for task_id in task_ids:
            try:
                self._objects.delete(prefix + task_id)
            except ServiceUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 the others do not wait for this one
                logger.warning("%s%s, of no task, cannot be deleted: %r", prefix, task_id, error)
        if task_ids:
            logger.warning("%d uploads of no task are deleted: %s", len(task_ids), some_of(task_ids))


def _key_at(at_s: float) -> tuple[str, date]:
    """Lower bound of the keys of uploads whose ids are made from `at_s` on, seconds since the epoch; and its day."""
    day = datetime.fromtimestamp(at_s, UTC).date()
    return day_prefix(day) + prefix_at(round(at_s * 1000)), day
