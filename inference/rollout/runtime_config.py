"""Configuration as commands have changed it: the default model, the served versions, the sinks of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.domain import ModelRef
from inference.errors import InvalidMetadata, shown
from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import DesiredState, RolloutStore
from inference.runtime.ttl_cache import TtlCache
from inference.settings import Settings
from inference.settings.schema import SinkName, ensemble_sinks

#: Seconds for which a reading of the desired state is valid: the longest time until each API process knows of a command.
READING_AGE_S = 1.0

_MAX_SHOWN_SINKS = 5


@dataclass(frozen=True)
class ConfigSnapshot:
    """Configuration and desired state at one moment. Models and sinks that the configuration no longer contains are ignored."""

    settings: Settings
    models: ModelRegistry
    state: DesiredState

    @property
    def default_name(self) -> str:
        served = self.state.served
        return served if served is not None and served in self.models else self.models.default_name

    def model(self, name: str | None = None) -> ModelSpec:
        """Return the model of this name; without a name the default model. Raises ModelNotFound."""
        return self.models.get(name or self.default_name)

    def reference(self, spec: ModelSpec) -> ModelRef:
        """Return the version of this model that is served."""
        return self.state.reference(spec)

    @property
    def sinks(self) -> tuple[SinkName, ...]:
        """The sinks for the results of requests that name none."""
        return chosen_sinks(self.settings, self.state)

    def sinks_for(self, wanted: Sequence[str] | None, *, field: str) -> tuple[str, ...]:
        """Return the sinks of a request that wants these sinks (None: the default), each once. Raises InvalidMetadata."""
        possible = self.settings.possible_sinks
        unknown = [sink for sink in wanted or () if sink not in possible]
        if unknown:
            raise InvalidMetadata(
                f"results cannot go to {', '.join(map(shown, unknown[:_MAX_SHOWN_SINKS]))}",
                field=field,
                expected=f"some of {', '.join(possible) or 'none'}",
            )
        return self.sinks if wanted is None else tuple(dict.fromkeys(wanted))

    @property
    def ensemble_mode(self) -> bool:
        return self.sinks == ensemble_sinks(True)


def chosen_sinks(settings: Settings, state: DesiredState) -> tuple[SinkName, ...]:
    """Return the sinks for the results of requests that name none."""
    chosen = settings.sinks if state.ensemble is None else ensemble_sinks(state.ensemble)
    return chosen if set(chosen) <= set(settings.possible_sinks) else settings.sinks


class RuntimeConfig:
    """Reads the desired state, at most once a second."""

    def __init__(
        self,
        settings: Settings,
        models: ModelRegistry,
        desired: RolloutStore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._models = models
        self._state = TtlCache(desired.read, max_age_s=READING_AGE_S, clock=clock)

    def now(self) -> ConfigSnapshot:
        """Return the current snapshot. Raises ServiceUnavailable."""
        return ConfigSnapshot(self._settings, self._models, self._state())

    def refresh(self) -> None:
        """Read the desired state again, even if it is not old. Raises ServiceUnavailable."""
        self._state.refresh()

    def last_known(self) -> ConfigSnapshot:
        return ConfigSnapshot(self._settings, self._models, self._state.last or DesiredState())
