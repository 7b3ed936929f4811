"""Log line about expired tasks, which the sweeper finds, or a worker that should run them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

#: Maximum number of task ids in a log line.
_MAX_IDS = 10


def log_expired(task_ids: Sequence[str]) -> None:
    """Log one line; none if no task expired."""
    if task_ids:
        logger.warning("%d tasks reached their deadline before they had a result: %s", len(task_ids), some_of(task_ids))


def some_of(task_ids: Sequence[str]) -> str:
    """Return the first task ids and the number of the others, for a short log line."""
    more = f" and {len(task_ids) - _MAX_IDS} more" if len(task_ids) > _MAX_IDS else ""
    return ", ".join(task_ids[:_MAX_IDS]) + more
