"""All tasks of a list, page after page."""

from __future__ import annotations

from inference.task_store import TaskFilter, TaskStore


def ids_of_request(store: TaskStore, request_id: str, *, limit: int = 100) -> list[str]:
    """Ids of the tasks with this request id, newest first; `limit` is that of each page."""
    return listed_ids(store, TaskFilter(request_id), limit=limit)


def listed_ids(store: TaskStore, wanted: TaskFilter, *, limit: int = 100) -> list[str]:
    """Ids of the tasks that match, newest first; `limit` is that of each page."""
    page = store.list_tasks(wanted, limit=limit)
    ids = list(page.task_ids)
    while page.next_before is not None:
        page = store.list_tasks(wanted, before=page.next_before, limit=limit)
        ids += page.task_ids
    return ids
