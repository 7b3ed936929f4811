"""Where images lie between the API and the worker."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from inference.settings import Settings


class ObjectStore(Protocol):
    """Bytes under a key such as ``uploads/2026/01/31/TASK_ID``. Safe to share between threads and greenlets."""

    def put(self, key: str, data: bytes) -> None:
        """Returns when the bytes are durable. Raises ServiceUnavailable; then nothing is left behind."""

    def get(self, key: str) -> bytes:
        """Raises ObjectNotFound, ServiceUnavailable."""

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine. Raises ServiceUnavailable."""

    def copy(self, source: str, target: str) -> None:
        """Raises ObjectNotFound, ServiceUnavailable."""

    def ping(self) -> None:
        """Raises ServiceUnavailable."""


def upload_key(task_id: str, at: datetime) -> str:
    """Where the input of a task lies."""
    return f"uploads/{at:%Y/%m/%d}/{task_id}"


def dead_letter_key(task_id: str) -> str:
    """Where the input of a dead letter is kept."""
    return f"dead-letters/{task_id}"


def open_object_store(settings: Settings) -> ObjectStore:
    """The store that the settings name."""
    from inference.storage.local import LocalObjectStore  # noqa: PLC0415 an adapter is loaded when it is chosen

    return LocalObjectStore(settings.uploads_path)
