"""The models that the configuration names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from inference.domain import ModelRef
from inference.errors import ConfigurationError, ModelNotFound, ObjectNotFound, shown
from inference.models.description_file import read_document, read_folder
from inference.models.files import ModelFiles
from inference.models.spec import ModelDescription, ModelSpec
from inference.settings import Settings


def described_models(settings: Settings) -> dict[str, ModelDescription]:
    """Read the models of the setting `models` by name, variants included; none of their files is opened.

    Raises:
        ConfigurationError: a description is wrong, two have the same name, or `default_model` is not one of them.
    """
    models: dict[str, ModelDescription] = {}
    for position, entry in enumerate(settings.models):
        for model in _describe(entry, position):
            if model.name in models:
                raise ConfigurationError(f"models: two models are named {model.name}", field="models")
            models[model.name] = model
    if settings.default_model not in {None, *models}:
        raise ConfigurationError(
            f"default_model: {settings.default_model} is not one of the models ({', '.join(models)})", field="default_model"
        )
    return models


def default_name(settings: Settings, models: Mapping[str, ModelDescription]) -> str:
    """Find the name of the default model, which requests without a model's name get."""
    return settings.default_model or next(iter(models))


class ModelRegistry:
    """Models by name, and the default model for requests without a model's name."""

    def __init__(self, specs: Mapping[str, ModelSpec], *, default: str) -> None:
        self._specs = specs
        self.default_name = default

    @staticmethod
    def load(settings: Settings, names: Collection[str] | None = None) -> ModelRegistry:
        """Read the descriptions, and find or fetch and hash the files of the named models (None: of all).

        Code that needs no files, only names, versions or queues, calls `described_models`.

        Raises:
            ConfigurationError: a description is wrong, or a file is missing or wrong.
            ServiceUnavailable: a file is in a bucket, and the object store does not answer.
        """
        described = described_models(settings)
        files = ModelFiles(settings, described.values())
        specs = {name: _resolve(model, files) for name, model in described.items() if names is None or name in names}
        return ModelRegistry(specs, default=default_name(settings, described))

    def get(self, name: str | None = None) -> ModelSpec:
        """Return the model of this name, or the default model. Raises ModelNotFound."""
        spec = self._specs.get(name or self.default_name)
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
    """Create the reference (name, version and digest) that a task carries."""
    return ModelRef(spec.name, spec.version, spec.digest)


def _describe(entry: Path | dict[str, Any], position: int) -> list[ModelDescription]:
    if isinstance(entry, Path):
        return read_folder(entry)
    return read_document(entry, folder=Path(), origin=f"models.{position}")


def _resolve(description: ModelDescription, files: ModelFiles) -> ModelSpec:
    try:
        return files.resolve(description)
    except (ConfigurationError, ObjectNotFound) as error:
        raise ConfigurationError(f"{description.origin}: {error.field}: {error.detail}", field=error.field) from error
