"""All tasks of a request id, page after page."""

from __future__ import annotations

from inference.task_store import TaskStore


def ids_of_request(store: TaskStore, request_id: str, *, limit: int = 100) -> list[str]:
    """Ids of the tasks with this request id, oldest first; `limit` is that of each page."""
    page = store.find_by_request(request_id, limit=limit)
    ids = list(page.task_ids)
    while page.next_after is not None:
        page = store.find_by_request(request_id, after=page.next_after, limit=limit)
        ids += page.task_ids
    return ids
