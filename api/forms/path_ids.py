"""Checks of ids in paths: an id that no task or batch can have reaches neither the task store nor a header."""

from __future__ import annotations

from typing import Any

from flask import Flask

from inference.errors import BatchNotFound, ErasureNotFound, TaskNotFound, shown
from inference.ids import is_task_id
from inference.runtime.log_context import LOG_FIELDS, bind_log_fields


def register_id_check(app: Flask) -> None:
    """Check `task_id`, `batch_id` and `erasure_id` of every route before the function of the route runs."""
    app.url_value_preprocessor(_check_ids)


def _check_ids(endpoint: str | None, values: dict[str, Any] | None) -> None:  # noqa: ARG001 Flask's signature
    """Check the values of a path, and add ids to the log lines of the request.

    Raises:
        TaskNotFound, BatchNotFound, ErasureNotFound: nothing has such an id.
    """
    for name, text in (values or {}).items():
        if name == "task_id" and not is_task_id(text):
            raise TaskNotFound(f"there is no task {shown(text)}", task_id=shown(text)[1:-1])
        if name == "batch_id" and not is_task_id(text):
            raise BatchNotFound(f"there is no batch {shown(text)}", batch_id=shown(text)[1:-1])
        if name == "erasure_id" and not is_task_id(text):
            raise ErasureNotFound(f"there is no erasure {shown(text)}")
        if name in LOG_FIELDS:
            bind_log_fields(**{name: text})
