"""Retention of the uploads in a bucket: a lifecycle rule of the store, and removal by this service where that is not enough."""

from __future__ import annotations

import itertools
import logging
import math
from datetime import UTC, datetime, timedelta

from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from inference.storage.protocol import UPLOADS_PREFIX, day_prefix, is_of_task

logger = logging.getLogger(__name__)

#: Id of this service's rule among the lifecycle rules of the bucket.
RETENTION_RULE_ID = "inference-uploads-retention"

#: Error codes of stores without lifecycle rules, with rules of another form, or with users without the right to set them.
_NO_RULES = {"NotImplemented", "MethodNotAllowed", "MalformedXML", "InvalidArgument", "InvalidRequest", "AccessDenied"}
_HOURS_A_DAY = 24
#: Days before the end of the retention in which the rule may have left uploads: it rounds up, and acts at midnight.
_DAYS_BEFORE_RULE = 4
#: Uploads that one call lists, in pages of 1,000.
_LISTED = 10_000


class UploadRetention:
    """Removes the old uploads of a bucket.

    Args:
        listed: number of uploads that one call lists at most.
    """

    def __init__(self, client: Minio, bucket: str, *, listed: int = _LISTED) -> None:
        self._client = client
        self._bucket = bucket
        self._listed = listed
        self._has_warned = False
        #: the last key that a removal which has not reached its end listed; their order is that of their days
        self._seen = ""

    def apply(self, hours: float | None) -> bool:
        """Remove uploads older than `hours`; return whether there may be more to remove now. None: keep all, remove the rule.

        A rule counts whole days. If that is not exact, or if the store has no rules, uploads are listed and removed here.

        Raises:
            minio.error.MinioException, urllib3.exceptions.HTTPError
        """
        has_rule = self._set_rule(None if hours is None else math.ceil(hours / _HOURS_A_DAY))
        if hours is None or (has_rule and hours % _HOURS_A_DAY == 0):
            return False
        first_kept = datetime.now(UTC) - timedelta(hours=hours)
        start = day_prefix(first_kept.date() - timedelta(days=_DAYS_BEFORE_RULE)) if has_rule else ""
        return self._remove_older(first_kept, start)

    def _set_rule(self, days: int | None) -> bool:
        """Set this service's lifecycle rule in addition to other rules of the bucket; None removes it.

        Returns:
            Whether the store has taken the rule.
        """
        try:
            present = self._client.get_bucket_lifecycle(self._bucket)
            others = [rule for rule in present.rules if rule.rule_id != RETENTION_RULE_ID] if present else []
            ours = [] if days is None else [_rule(days)]
            if others or ours:
                self._client.set_bucket_lifecycle(self._bucket, LifecycleConfig([*others, *ours]))
            elif present:
                self._client.delete_bucket_lifecycle(self._bucket)
        except S3Error as error:
            if error.code not in _NO_RULES:
                raise
            if not self._has_warned:
                self._has_warned = True
                logger.warning("the object store takes no lifecycle rule (%s): the relay removes old uploads", error.code)
            return False
        return True

    def _remove_older(self, first_kept: datetime, start: str) -> bool:
        """List the next uploads after the key `start`, and remove those put before a time; return whether more follow."""
        end = day_prefix(first_kept.date() + timedelta(days=1))
        after = max(self._seen, start)
        found = self._client.list_objects(self._bucket, UPLOADS_PREFIX, recursive=True, start_after=after or None)
        listed = [(entry.object_name or "", entry.last_modified) for entry in itertools.islice(found, self._listed)]
        old = [key for key, put_at in listed if is_of_task(key) and key < end and put_at is not None and put_at < first_kept]
        for error in self._client.remove_objects(self._bucket, map(DeleteObject, old)):
            logger.warning("the old upload %s cannot be removed: %s", error.name, error.code)
        has_more = len(listed) == self._listed and listed[-1][0] < end
        self._seen = listed[-1][0] if has_more else ""
        return has_more


def _rule(days: int) -> Rule:
    return Rule(ENABLED, rule_filter=Filter(prefix=UPLOADS_PREFIX), rule_id=RETENTION_RULE_ID, expiration=Expiration(days=days))
