"""The task record: its protocol, and Redis as the place where it lives."""

from inference.task_store.protocol import (
    Accepted,
    Commit,
    Enqueue,
    Lease,
    Leases,
    LeaseState,
    QueueStats,
    Reaped,
    StateChanged,
    TaskStore,
)

__all__ = [
    "Accepted",
    "Commit",
    "Enqueue",
    "Lease",
    "LeaseState",
    "Leases",
    "QueueStats",
    "Reaped",
    "StateChanged",
    "TaskStore",
]
