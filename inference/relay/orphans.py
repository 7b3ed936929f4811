"""Uploads without a task: a server's answer was lost, or the API process ended, before the task was accepted.

Uploads of refused requests are deleted at once. The others are checked here, each once: when its task has been accepted or never
will be, and before any record can expire. The task store knows the shortest life of the records, since processes may have had
different settings. Older uploads stay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from inference.errors import ServiceUnavailable
from inference.lifecycle.task_ids import belongs_to, prefix_at
from inference.lifecycle.task_log import log_tasks
from inference.runtime.log_context import log_context
from inference.storage.protocol import ObjectStore, day_prefix
from inference.task_store.protocol import RecordLife
from inference.task_store.stores import MaintenanceStore

logger = logging.getLogger(__name__)

#: Uploads of one check, and the pause before the next check if there are more, seconds. Each check of a folder lists all of it.
_CHECK_SIZE, _PAUSE_S = 1000, 1.0
_FOLDER_CHECK_SIZE = 20_000
#: Ids in one call of the task store.
_IDS = 1000
#: Interval between two checks as a share of `orphan_after_s`, and the longest interval, seconds.
_INTERVAL_SHARE, _MAX_INTERVAL_S = 0.2, 60.0
#: Share of the records' shortest life that is used, since clocks differ.
_LIFE_SHARE = 0.9


class Orphans:
    """Deletes uploads without a task. Several instances may run.

    Args:
        after_s: age from which an upload without a task is deleted.
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
        self._size = _FOLDER_CHECK_SIZE if objects.is_local else _CHECK_SIZE
        #: the last key that was checked, and its day; all uploads before them were checked
        self._seen, self._day = "", date.min
        self._has_warned = False

    def check(self) -> float:
        """Check the next uploads; returns the seconds until the next call. Raises ServiceUnavailable; the next call resumes."""
        return _PAUSE_S if self.check_once() else min(_MAX_INTERVAL_S, self._after_s * _INTERVAL_SHARE)

    def check_once(self) -> bool:
        """Check the next uploads; returns whether there may be more. Raises as `check`."""
        tag, life = self._store.get_tag(), self._store.get_record_life()
        self._warn_if_too_short(life)
        now_s = self._clock()
        oldest = _key_at(max(now_s - life.shortest_s * _LIFE_SHARE, life.since_s))
        end, last_day = _key_at(now_s - self._after_s)
        self._seen, self._day = max((self._seen, self._day), oldest)
        while self._day <= last_day:
            prefix = day_prefix(self._day)
            keys = self._objects.list_keys(prefix, after=self._seen, limit=self._size)
            ids = [key.removeprefix(prefix) for key in keys if key < end]
            ours = [task_id for task_id in ids if belongs_to(task_id, tag)]
            for start in range(0, len(ours), _IDS):
                self._delete(prefix, self._store.find_unknown(tag, ours[start : start + _IDS]))
            if len(ids) == self._size:
                self._seen = keys[-1]
                return True
            self._day += timedelta(days=1)
        self._seen, self._day = end, last_day
        return False

    def _warn_if_too_short(self, life: RecordLife) -> None:
        is_too_short = life.shortest_s * _LIFE_SHARE <= self._after_s
        if is_too_short and not self._has_warned:
            logger.warning(
                "uploads without a task are not deleted: uploads.orphan_after_s must be less than task_store.result_ttl_s"
            )
        self._has_warned = is_too_short

    def _delete(self, prefix: str, task_ids: list[str]) -> None:
        for task_id in task_ids:
            try:
                self._objects.delete(prefix + task_id)
            except ServiceUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 one upload must not delay the others
                with log_context(task_id=task_id):
                    logger.warning("the upload %s%s, which has no task, cannot be deleted: %r", prefix, task_id, error)
        if task_ids:
            log_tasks(logger, "deleted %d uploads without a task: %s", task_ids)


def _key_at(at_s: float) -> tuple[str, date]:
    """Return a lower bound of the keys of uploads with ids created from `at_s` on, seconds since the epoch; and its day."""
    day = datetime.fromtimestamp(at_s, UTC).date()
    return day_prefix(day) + prefix_at(round(at_s * 1000)), day
