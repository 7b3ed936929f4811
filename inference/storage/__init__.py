"""Object stores: images between the API and the worker."""

from __future__ import annotations

from inference.settings import Settings
from inference.storage.protocol import ChunkStore, ObjectStore


def open_object_store(settings: Settings) -> ObjectStore:
    """Open the object store that the settings name."""
    # An adapter and its client library are imported only if the settings choose them.
    if settings.uploads.store == "s3":
        from inference.storage.s3 import S3ObjectStore  # noqa: PLC0415

        return S3ObjectStore(settings.s3, settings.uploads.bucket)
    from inference.storage.local import LocalObjectStore  # noqa: PLC0415

    return LocalObjectStore(settings.uploads_path)


def chunk_store(objects: ObjectStore) -> ChunkStore | None:
    """Return the store as one that takes objects in pieces; None if clients put their objects without this service."""
    from inference.storage.local import LocalObjectStore  # noqa: PLC0415

    return objects if isinstance(objects, LocalObjectStore) else None
