"""One task of the fake task store."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.messages import PredictionRequest, TaskRecord, TaskStatus, decode_outcome


@dataclass
class FakeTask:
    request: PredictionRequest
    number: int
    created_at_ms: int
    deadline_at_ms: int
    status: TaskStatus = TaskStatus.QUEUED
    owner: str | None = None
    leased_until_ms: int | None = None
    attempts: int = 0
    deaths: int = 0
    #: the attempt that was counted as a death last: each counts once, whoever finds it
    dead_attempt: int = 0
    losses: int = 0
    alone: bool = False
    started_at_ms: int = 0
    finished_at_ms: int = 0
    requeued_at_ms: int = 0
    outcome: bytes = b""
    deliveries: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    expires_at_ms: int | None = None
    is_image_stored: bool = True

    def record(self) -> TaskRecord:
        request = self.request
        return TaskRecord(
            task_id=request.task_id,
            request_id=request.request_id,
            model=request.model,
            queue=request.queue,
            item=request.item,
            status=self.status,
            created_at_ms=self.created_at_ms,
            deadline_at_ms=self.deadline_at_ms,
            started_at_ms=self.started_at_ms,
            finished_at_ms=self.finished_at_ms,
            attempts=self.attempts,
            deaths=self.deaths,
            store_ms=request.store_ms,
            priority=request.priority,
            batch_id=request.batch_id,
            outcome=decode_outcome(self.outcome) if self.outcome else None,
            deliveries=dict(self.deliveries),
            refusals=dict(self.refusals),
            is_image_stored=self.is_image_stored,
        )

    @property
    def refusing(self) -> list[str]:
        """The sinks that refused its result."""
        return [sink for sink, state in self.deliveries.items() if state == "refused"]
