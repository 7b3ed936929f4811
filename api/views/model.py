"""Model object for clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.views.urls import model_url
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import LoadReport
from inference.rollout.runtime_config import ConfigSnapshot
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo


def model_view(spec: ModelSpec, snapshot: ConfigSnapshot, workers: Sequence[WorkerInfo]) -> dict[str, Any]:
    """The model object in a list. Rates and library are those of the workers that have the model loaded."""
    loaded = [model for _, model in _loaded(spec, workers)]
    return {
        **snapshot.reference(spec).to_dict(),
        "default": spec.name == snapshot.default_name,
        "description": spec.description,
        "task": spec.task,
        "input": spec.input.model_dump(mode="json"),
        "label_count": len(spec.labels),
        "runtime": next((model.runtime for model in loaded if model.runtime), None),
        "images_per_s": round(sum(model.images_per_s for model in loaded), 1) if loaded else None,
        "warm_workers": len(loaded),
        "urls": {"self": model_url(spec.name)},
    }


def model_detail_view(
    spec: ModelSpec, snapshot: ConfigSnapshot, workers: Sequence[WorkerInfo], reports: Mapping[str, LoadReport] | None
) -> dict[str, Any]:
    """The model object of one model: as in a list, with its labels, the other keys of its description, and its workers.

    Args:
        reports: results so far, by worker, of the command that loads other files of this model now; None if there is none.
    """
    loaded = list(_loaded(spec, workers))
    return {
        **model_view(spec, snapshot, workers),
        "license": spec.license,
        "source": spec.source,
        "labels": spec.labels,
        "threshold": spec.threshold,
        "top_k": spec.top_k,
        "workers": [_worker_view(worker, model) for worker, model in loaded],
        "change": None if reports is None else _change_view([worker.worker for worker, _ in loaded], reports),
    }


def _change_view(workers: Sequence[str], reports: Mapping[str, LoadReport]) -> dict[str, Any]:
    return {"workers": [_load_view(worker, reports.get(worker)) for worker in sorted({*workers, *reports})]}


def _load_view(worker: str, report: LoadReport | None) -> dict[str, Any]:
    if report is None:
        return {"worker": worker, "status": "loading", "load_s": None}
    return {"worker": worker, "status": "failed" if report.error else "ready", "load_s": round(report.load_s, 3)}


def _loaded(spec: ModelSpec, workers: Sequence[WorkerInfo]) -> Iterator[tuple[WorkerInfo, LoadedModelInfo]]:
    return ((worker, model) for worker in workers for model in worker.models if model.name == spec.name)


def _worker_view(worker: WorkerInfo, model: LoadedModelInfo) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "version": model.version,
        "digest": model.digest,
        "runtime": model.runtime or None,
        "predict_ms": round(model.predict_ms, 3),
        "images_per_s": round(model.images_per_s, 1),
    }
