"""The models that the configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from inference.errors import ConfigurationError, ModelNotFound, shown
from inference.messages import ModelRef
from inference.models.spec import ModelSpec, load_spec


class ModelRegistry:
    """Model descriptions by name, and which of them is served to requests that name none."""

    def __init__(self, specs: Iterable[ModelSpec], *, served: str | None = None) -> None:
        self._specs: dict[str, ModelSpec] = {}
        for spec in specs:
            if spec.name in self._specs:
                raise ConfigurationError(f"models: two models are named {spec.name}", field="models")
            self._specs[spec.name] = spec
        self.served_name = served or next(iter(self._specs))
        if self.served_name not in self._specs:
            raise ConfigurationError(
                f"served_model: {self.served_name} is none of the models ({', '.join(self._specs)})",
                field="served_model",
            )

    @staticmethod
    def load(folders: Iterable[Path], *, served: str | None) -> ModelRegistry:
        """Read each folder's model.yaml. Raises ConfigurationError."""
        return ModelRegistry([load_spec(folder) for folder in folders], served=served)

    def get(self, name: str | None = None) -> ModelSpec:
        """The model of this name; the served one without a name. Raises ModelNotFound."""
        spec = self._specs.get(name or self.served_name)
        if spec is None:
            raise ModelNotFound(
                f"there is no model {shown(name)}", field="metadata.model", expected=f"one of {', '.join(self._specs)}"
            )
        return spec

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())


def reference(spec: ModelSpec) -> ModelRef:
    """The name, version and digest that a task carries."""
    return ModelRef(spec.name, spec.version, spec.digest)
