"""Reading of model descriptions from `model.yaml` or the setting `models`; each variant becomes a model of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference.errors import ConfigurationError
from inference.models.spec import FILE_KEYS, ModelDescription
from inference.settings.documents import read_mapping

DESCRIPTION_FILE = "model.yaml"

#: Keys that the reader sets; a document must not contain them.
_RESERVED_KEYS = ("folder", "origin")
#: Type of pydantic's error for a default that depends on a wrong key.
_FOLLOWING_ERROR = "default_factory_not_called"
#: Keys with mappings of which a variant may change single values.
_MERGED_KEYS = ("input", "output")
#: If a variant has the key on the left, it does not inherit the parent's keys on the right.
_REPLACED_KEYS = {
    "file": ("architecture_file", "weights_file"),
    "architecture_file": ("file",),
    "labels": ("labels_file",),
    "labels_file": ("labels",),
}


def read_folder(folder: Path) -> list[ModelDescription]:
    """Read the models that `folder`/model.yaml describes.

    Raises:
        ConfigurationError: the description is missing or wrong; the message names the key.
    """
    origin = folder / DESCRIPTION_FILE
    if os.path.exists(origin) and not os.path.isfile(origin):  # noqa: PTH110, PTH113 Path's methods raise if a folder is not readable
        raise ConfigurationError(f"{origin} is not a file")  # reading a pipe may never end
    document = read_mapping(origin, "the model description", wrong="not YAML")
    if not document:
        raise ConfigurationError(f"{origin} must be a mapping with name, file and input")
    return read_document(document, folder=folder, origin=str(origin))


def read_document(document: Mapping[str, Any], *, folder: Path, origin: str) -> list[ModelDescription]:
    """Read the model that `document` describes, and one for each of its variants.

    A description with variants and without a file holds only their common values, and is not a model itself.

    Args:
        folder: the base of relative paths.
        origin: the name of the document in errors.

    Raises:
        ConfigurationError: a key is wrong; the message names all wrong keys.
    """
    for key in _RESERVED_KEYS:
        if key in document:
            raise ConfigurationError(f"{origin}: {key}: unknown key; paths are relative to the description", field=key)
    common = {key: value for key, value in document.items() if key != "variants"}
    variants = document.get("variants") or {}
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise ConfigurationError(f"{origin}: variants: must be mappings by name", field="variants")
    described = {f"variants.{name}.": _create_variant(common, name, changes, origin) for name, changes in variants.items()}
    if not variants or any(key in common for key in FILE_KEYS):
        described = {"": common} | described
    return [_validate(values | {"folder": folder, "origin": origin}, prefix) for prefix, values in described.items()]


def _create_variant(common: Mapping[str, Any], name: Any, changes: Mapping[str, Any], origin: str) -> dict[str, Any]:
    if "name" in changes:
        raise ConfigurationError(f"{origin}: variants.{name}.name: unknown key; {name} is the name", field="variants")
    replaced = {left_out for key in changes for left_out in _REPLACED_KEYS.get(key, ())}
    values = {key: value for key, value in common.items() if key not in replaced} | dict(changes) | {"name": name}
    for key in _MERGED_KEYS:
        parents, own = common.get(key), changes.get(key)
        if isinstance(parents, dict) and isinstance(own, dict):
            values[key] = parents | own
    return values


def _validate(values: Mapping[str, Any], prefix: str) -> ModelDescription:
    try:
        return ModelDescription.model_validate(values)
    except ValidationError as error:
        found = (each for each in error.errors() if each["type"] != _FOLLOWING_ERROR)
        problems = "; ".join(f"{prefix}{_format_problem(each)}" for each in found)
        raise ConfigurationError(f"{values['origin']}: {problems}") from error


def _format_problem(found: Any) -> str:
    """Format one of pydantic's errors as `key: problem`; an error of the whole model has the key in its text."""
    key = ".".join(map(str, found["loc"]))
    text = str(found["msg"]).removeprefix("Value error, ")
    return f"{key}: {text}" if key else text
