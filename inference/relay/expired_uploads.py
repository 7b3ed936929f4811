"""Expired uploads: images that clients put into the object store themselves; requests that named one have a copy of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from inference.errors import ServiceUnavailable
from inference.storage.client_uploads import INCOMING_PREFIX, expires_at_ms
from inference.storage.protocol import ObjectStore

logger = logging.getLogger(__name__)

#: Uploads of one listing.
_PAGE_SIZE = 1000
_INTERVAL_S = 60.0
#: Seconds for which an upload stays after its expiry: clocks differ, and a request that came in time is being accepted.
_GRACE_S = 120.0


class ExpiredUploads:
    """Removes expired uploads. Several instances may run.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, objects: ObjectStore, *, clock: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._clock = clock

    def remove_expired(self) -> float:
        """Remove expired uploads; returns the seconds until the next call. Raises ServiceUnavailable."""
        limit_ms = (self._clock() - _GRACE_S) * 1000
        removed, after = 0, ""
        while keys := self._objects.list_keys(INCOMING_PREFIX, after=after, limit=_PAGE_SIZE):
            times = {key: expires_at_ms(key) for key in keys}
            removed += sum(self._remove(key) for key, at_ms in times.items() if at_ms is not None and at_ms < limit_ms)
            is_past = any(at_ms is not None and at_ms >= limit_ms for at_ms in times.values())
            if is_past or len(keys) < _PAGE_SIZE:
                break
            after = keys[-1]
        if removed:
            logger.info("removed %d expired uploads", removed)
        return _INTERVAL_S

    def _remove(self, key: str) -> bool:
        try:
            self._objects.delete(key)
        except ServiceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 one upload must not delay the others
            logger.warning("the expired upload %s cannot be removed: %r", key, error)
            return False
        return True
