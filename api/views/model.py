"""Model object for clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from api.views.urls import model_url
from inference.models.spec import ModelSpec
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


def model_detail_view(spec: ModelSpec, snapshot: ConfigSnapshot, workers: Sequence[WorkerInfo]) -> dict[str, Any]:
    """The model object of one model: as in a list, with its labels, the other keys of its description, and its workers."""
    return {
        **model_view(spec, snapshot, workers),
        "license": spec.license,
        "source": spec.source,
        "labels": spec.labels,
        "threshold": spec.threshold,
        "top_k": spec.top_k,
        "workers": [_worker_view(worker, model) for worker, model in _loaded(spec, workers)],
    }


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
