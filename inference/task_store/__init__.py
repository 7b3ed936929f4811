"""The task record: its protocol, and Redis as the place where it lives."""

from inference.task_store.protocol import (
    Accepted,
    AcceptedBatch,
    Commit,
    Enqueue,
    KnownKey,
    Lease,
    Leases,
    LeaseState,
    QueueLoad,
    QueuePlace,
    QueueStats,
    Reaped,
    RecordLife,
    Room,
    TaskPage,
    TaskStore,
)

__all__ = [
    "Accepted",
    "AcceptedBatch",
    "Commit",
    "Enqueue",
    "KnownKey",
    "Lease",
    "LeaseState",
    "Leases",
    "QueueLoad",
    "QueuePlace",
    "QueueStats",
    "Reaped",
    "RecordLife",
    "Room",
    "TaskPage",
    "TaskStore",
]
