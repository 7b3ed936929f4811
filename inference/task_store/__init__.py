"""Task store: its protocols, one for each kind of caller, and its adapter for Redis."""

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
)
from inference.task_store.stores import DeliveryStore, MaintenanceStore, SubmissionStore, TaskReader, TaskStore, WorkerStore

__all__ = [
    "Accepted",
    "AcceptedBatch",
    "Commit",
    "DeliveryStore",
    "Enqueue",
    "KnownKey",
    "Lease",
    "LeaseState",
    "Leases",
    "MaintenanceStore",
    "QueueLoad",
    "QueuePlace",
    "QueueStats",
    "Reaped",
    "RecordLife",
    "Room",
    "SubmissionStore",
    "TaskPage",
    "TaskReader",
    "TaskStore",
    "WorkerStore",
]
