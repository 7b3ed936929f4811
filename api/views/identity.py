"""Who answers here, as commands have made it."""

from __future__ import annotations

import contextlib
from typing import Any

from inference.container import Services
from inference.errors import ServiceUnavailable
from inference.rollout.runtime_config import ConfigSnapshot


def identity(services: Services) -> dict[str, Any]:
    """Pipeline, served model, ensemble mode and where results go."""
    effective = _last_known(services)
    spec = effective.model()
    return {
        "pipeline_id": services.settings.pipeline_id,
        "served_model": spec.name,
        "model": effective.reference(spec).to_dict(),
        "input_shape": list(spec.input.shape),
        "ensemble_mode": effective.ensemble_mode,
        "sinks": list(effective.sinks),
    }


def sentence(who: dict[str, Any]) -> str:
    """The same in words."""
    shape = ",".join(map(str, who["input_shape"]))
    results_go = "to an ensemble's aggregator" if who["ensemble_mode"] else f"to {', '.join(who['sinks']) or 'no sink'}"
    return f"Image inference of {who['pipeline_id']}: model {who['served_model']}, input {shape}; results go {results_go}"


def _last_known(services: Services) -> ConfigSnapshot:
    with contextlib.suppress(ServiceUnavailable):  # who we are can be said without the store too
        services.effective.now()
    return services.effective.last_known()
