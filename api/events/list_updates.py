"""Updates of lists: which of the tasks that have changed each list is to show, and how often."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, product

from api.events.list_subject import MAX_TASKS, ListSubject, TaskTexts
from inference.domain import TaskRecord
from inference.runtime.chunks import chunks
from inference.task_store import SubmissionStore, TaskState

#: Seconds between two updates, at least.
INTERVAL_S = 0.25
#: Tasks that are read, and events that are sent, per second: more lead to fewer updates. This is about 3 % of a core.
_WORK_PER_S = 300
#: Changed tasks that are remembered for the next update, and those of them that are compared with filters.
_MAX_CHANGED, _MAX_EXAMINED = 10_000, 2_000
#: Tasks that all lists of an update show together.
_MAX_READ = 300
#: Tasks of one call to the store.
STATES_CHUNK, RECORDS_CHUNK = 500, 50


class ListUpdates:
    """Collects the tasks that have changed, for all lists of a process.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, store: SubmissionStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        #: by their last change, the latest at the end
        self._changed: dict[str, None] = {}
        self._forgotten = 0
        self._due_at_s = 0.0

    def add(self, task_ids: Iterable[str]) -> None:
        """Note tasks that were accepted, or whose status has changed."""
        for task_id in task_ids:
            self._changed.pop(task_id, None)
            self._changed[task_id] = None
        too_many = len(self._changed) - _MAX_CHANGED
        for task_id in list(islice(self._changed, max(0, too_many))):
            del self._changed[task_id]
            self._forgotten += 1

    def publish_if_due(self, lists: Sequence[ListSubject]) -> None:
        """Update the lists, unless the last update is too recent for the work that it was. Raises ServiceUnavailable."""
        now_s = self._clock()
        if not self._changed or now_s < self._due_at_s:
            return
        changed = list(reversed(self._changed))
        chosen = _choose(lists, changed, self._states(lists, changed))
        task_ids = list(islice(dict.fromkeys(task_id for ids in chosen.values() for task_id in ids[:MAX_TASKS]), _MAX_READ))
        texts = self._texts(task_ids)
        readable = set(task_ids)
        sent = 0
        for subject, matching in chosen.items():
            shown = [task_id for task_id in matching[:MAX_TASKS] if task_id in readable]
            omitted = len(matching) - len(shown) + (self._forgotten if subject.wanted.is_any else 0)
            subject.take(shown, omitted, texts)
            sent += len(subject.streams)
        self._due_at_s = now_s + max(INTERVAL_S, (len(task_ids) + sent) / _WORK_PER_S)
        self._changed, self._forgotten = {}, 0

    def clear(self) -> None:
        """Forget all changes."""
        self._changed, self._forgotten = {}, 0

    def _states(self, lists: Sequence[ListSubject], changed: Sequence[str]) -> dict[str, TaskState]:
        """Read the states of the tasks that filters are compared with."""
        if all(subject.wanted.is_any for subject in lists):
            return {}
        states: dict[str, TaskState] = {}
        for task_ids in chunks(changed[:_MAX_EXAMINED], STATES_CHUNK):
            found = zip(task_ids, self._store.get_states(task_ids), strict=True)
            states |= {task_id: state for task_id, state in found if state is not None}
        return states

    def _texts(self, task_ids: Sequence[str]) -> TaskTexts:
        records: dict[str, TaskRecord] = {}
        for part in chunks(task_ids, RECORDS_CHUNK):
            records |= {record.task_id: record for record in self._store.get_many(part) if record is not None}
        return TaskTexts(records, self._store)


def _choose(
    lists: Sequence[ListSubject], changed: Sequence[str], states: dict[str, TaskState]
) -> dict[ListSubject, Sequence[str]]:
    """Return, for each list that has some, the changed tasks that it is to show."""
    chosen: dict[ListSubject, Sequence[str]] = {subject: changed for subject in lists if subject.wanted.is_any}
    by_names: dict[tuple[str, str, str], list[ListSubject]] = defaultdict(list)
    for subject in lists:
        if not subject.wanted.is_any:
            by_names[subject.wanted.owner, subject.wanted.request_id, subject.wanted.model].append(subject)
    matching: dict[ListSubject, list[str]] = defaultdict(list)
    for task_id, state in states.items():
        for names in product({"", state.owner}, ("", state.request_id), ("", state.model)):
            for subject in by_names.get(names, ()):
                if subject.matches(task_id, state):
                    matching[subject].append(task_id)
    return chosen | matching
