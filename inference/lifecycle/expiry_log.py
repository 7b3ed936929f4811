"""The log line about tasks that expired, wherever they were found: by the sweeper, or by a worker that was to run them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

#: Task ids that a log line names.
_NAMED = 10


def log_expired(task_ids: Sequence[str]) -> None:
    """One line, or none where no task expired."""
    if task_ids:
        logger.warning("%d tasks reached their deadline before they had a result: %s", len(task_ids), some_of(task_ids))


def some_of(task_ids: Sequence[str]) -> str:
    """The first of them, for a log line that stays short."""
    more = f" and {len(task_ids) - _NAMED} more" if len(task_ids) > _NAMED else ""
    return ", ".join(task_ids[:_NAMED]) + more
