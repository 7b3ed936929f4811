"""Description of the service, including changes by commands."""

from __future__ import annotations

import contextlib
from typing import Any

from inference.container import Services
from inference.errors import ServiceUnavailable
from inference.rollout.runtime_config import ConfigSnapshot


def identity(services: Services) -> dict[str, Any]:
    """Return the pipeline, served model, ensemble mode and sinks."""
    snapshot = _last_known(services)
    spec = snapshot.model()
    return {
        "pipeline_id": services.settings.pipeline_id,
        "served_model": spec.name,
        "model": snapshot.reference(spec).to_dict(),
        "input_shape": list(spec.input.shape),
        "ensemble_mode": snapshot.ensemble_mode,
        "sinks": list(snapshot.sinks),
    }


def sentence(known: dict[str, Any]) -> str:
    """Write the result of `identity` as a sentence."""
    shape = ",".join(map(str, known["input_shape"]))
    results_go = "to an ensemble's aggregator" if known["ensemble_mode"] else f"to {', '.join(known['sinks']) or 'no sink'}"
    return f"Image inference of {known['pipeline_id']}: model {known['served_model']}, input {shape}; results go {results_go}"


def _last_known(services: Services) -> ConfigSnapshot:
    with contextlib.suppress(ServiceUnavailable):  # the description does not need the task store
        services.runtime_config.now()
    return services.runtime_config.last_known()
