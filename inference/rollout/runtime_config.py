"""The configuration as commands have changed it: which model is served, which version of it, where results go."""

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

#: Seconds that a reading of the desired state counts: as long as it takes at most until each API process has heard of a command.
READING_AGE_S = 1.0

_MAX_SHOWN_SINKS = 5


@dataclass(frozen=True)
class ConfigSnapshot:
    """One moment of it. What a command named that the configuration does not name any more counts for nothing."""

    settings: Settings
    models: ModelRegistry
    state: DesiredState

    @property
    def default_name(self) -> str:
        served = self.state.served
        return served if served is not None and served in self.models else self.models.default_name

    def model(self, name: str | None = None) -> ModelSpec:
        """The model of this name; the served one without a name. Raises ModelNotFound."""
        return self.models.get(name or self.default_name)

    def reference(self, spec: ModelSpec) -> ModelRef:
        """The version of this model that is served."""
        return self.state.reference(spec)

    @property
    def sinks(self) -> tuple[SinkName, ...]:
        """The sinks for the results of requests that name none."""
        return chosen_sinks(self.settings, self.state)

    def sinks_for(self, wanted: Sequence[str] | None, *, field: str) -> tuple[str, ...]:
        """Where the results go of a request that names these (None: no) sinks, each once. Raises InvalidMetadata."""
        possible = self.settings.possible_sinks
        unknown = [sink for sink in wanted or () if sink not in possible]
        if unknown:
            raise InvalidMetadata(
                f"results cannot go to {', '.join(map(shown, unknown[:_MAX_SHOWN_SINKS]))} here",
                field=field,
                expected=f"some of {', '.join(possible) or 'none'}",
            )
        return self.sinks if wanted is None else tuple(dict.fromkeys(wanted))

    @property
    def ensemble_mode(self) -> bool:
        return self.sinks == ensemble_sinks(True)


def chosen_sinks(settings: Settings, state: DesiredState) -> tuple[SinkName, ...]:
    """The sinks for the results of requests that name none."""
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
        """Raises ServiceUnavailable."""
        return ConfigSnapshot(self._settings, self._models, self._state())

    def refresh(self) -> None:
        """Read it again, whatever the age. Raises ServiceUnavailable."""
        self._state.refresh()

    def last_known(self) -> ConfigSnapshot:
        return ConfigSnapshot(self._settings, self._models, self._state.last or DesiredState())
