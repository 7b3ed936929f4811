"""Protocol of sinks, and the result document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from inference.domain import CompletedTask

NO_CONTEXTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Refusal:
    """A document that the sink will never take."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class StoredResult:
    """A result that is to be erased; the sink may have it or not."""

    task_id: str
    #: empty if other tasks have the same one
    own_request_id: str


class SinkUnavailable(Exception):
    """The sink does not take all documents now; the others stay in the outbox.

    Args:
        delivered: ids of the tasks whose documents it has taken.
        refusals: the documents that it will never take.
    """

    def __init__(self, detail: str, *, delivered: Iterable[str] = (), refusals: Iterable[Refusal] = ()) -> None:
        super().__init__(detail)
        self.delivered = frozenset(delivered)
        self.refusals = list(refusals)


class ResultSink(Protocol):
    """Takes result documents. Each may come more than once: readers drop duplicates by `task_id`."""

    name: str

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        """Write documents; return when the sink has stored all but the refused ones.

        Args:
            contexts: by task id, the trace context that goes with a document, where a sink has a place for it.

        Raises:
            SinkUnavailable: all documents but its `delivered` and `refusals` must be written again.
        """

    def erase(self, results: Sequence[StoredResult]) -> list[bool]:
        """Erase results; return for each whether the sink has nothing of it now; False if it cannot delete that.

        Raises:
            SinkUnavailable: all must be erased again.
        """

    def close(self) -> None: ...


def result_document(task: CompletedTask, pipeline_id: str) -> dict[str, Any]:
    """Return the result document of a succeeded task.

    `prediction` is a float32 array of shape (classes,), whether or not the answers of HTTP have it. `owner` is missing if
    the task has none.
    """
    result, model = task.outcome.result, task.outcome.model
    if result is None or model is None:
        raise ValueError(f"task {task.task_id} has no result")
    confident = {} if result.confident is None else {"confident": result.confident}
    owner = {"owner": task.owner} if task.owner else {}
    return {
        "task_id": task.task_id,
        "request_id": task.request_id,
        **owner,
        "pipeline_id": pipeline_id,
        "inference_model_id": model.name,
        "model_version": model.version,
        "model_digest": model.digest,
        "class": result.class_index,
        "label": result.label,
        "confidence_level": result.confidence_level,
        **confident,
        **result.optional_members(),
        "prediction": result.prediction,
        "created_at_ms": task.created_at_ms,
        "finished_at_ms": task.finished_at_ms,
    }
