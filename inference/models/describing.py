"""From a folder's `model.yaml`, or an entry of the setting `models`, to descriptions; variants become models of their own."""

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

#: What a reader sets, and a document may not.
_OURS = ("folder", "origin")
#: A variant that has one of these keys does without the parent's of the other side.
_INSTEAD_OF = {
    "file": ("architecture_file", "weights_file"),
    "architecture_file": ("file",),
    "labels": ("labels_file",),
    "labels_file": ("labels",),
}


def read_folder(folder: Path) -> list[ModelDescription]:
    """The models that `folder`/model.yaml describes.

    Raises:
        ConfigurationError: the description is missing or wrong; says which key.
    """
    origin = folder / DESCRIPTION_FILE
    if os.path.exists(origin) and not os.path.isfile(origin):  # noqa: PTH110, PTH113 Path's raise where a folder may not be read
        raise ConfigurationError(f"{origin} is no file")  # reading a pipe may never end
    document = read_mapping(origin, "the model description", wrong="not YAML")
    if not document:
        raise ConfigurationError(f"{origin} must be a mapping with name, file and input")
    return read_document(document, folder=folder, origin=str(origin))


def read_document(document: Mapping[str, Any], *, folder: Path, origin: str) -> list[ModelDescription]:
    """The model that `document` describes, and one for each of its variants.

    A description without a file of its own, but with variants, is what these share and no model.

    Args:
        folder: where relative paths begin.
        origin: what errors call the document.

    Raises:
        ConfigurationError: says every wrong key.
    """
    for key in _OURS:
        if key in document:
            raise ConfigurationError(f"{origin}: {key}: unknown key; paths are relative to the description", field=key)
    common = {key: value for key, value in document.items() if key != "variants"}
    variants = document.get("variants") or {}
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise ConfigurationError(f"{origin}: variants: must be mappings by name", field="variants")
    described = {f"variants.{name}.": _variant(common, name, changes, origin) for name, changes in variants.items()}
    if not variants or any(key in common for key in FILE_KEYS):
        described = {"": common} | described
    return [_validated(values | {"folder": folder, "origin": origin}, prefix) for prefix, values in described.items()]


def _variant(common: Mapping[str, Any], name: Any, changes: Mapping[str, Any], origin: str) -> dict[str, Any]:
    if "name" in changes:
        raise ConfigurationError(f"{origin}: variants.{name}.name: unknown key; {name} is the name", field="variants")
    replaced = {left_out for key in changes for left_out in _INSTEAD_OF.get(key, ())}
    values = {key: value for key, value in common.items() if key not in replaced} | dict(changes) | {"name": name}
    parents, own = common.get("input"), changes.get("input")
    if isinstance(parents, dict) and isinstance(own, dict):
        values["input"] = parents | own
    return values


def _validated(values: Mapping[str, Any], prefix: str) -> ModelDescription:
    try:
        return ModelDescription.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{prefix}{_problem(found)}" for found in error.errors())
        raise ConfigurationError(f"{values['origin']}: {problems}") from error


def _problem(found: Any) -> str:
    """One of pydantic's errors as `key: what is wrong`; one of the whole says its key itself."""
    key = ".".join(map(str, found["loc"]))
    text = str(found["msg"]).removeprefix("Value error, ")
    return f"{key}: {text}" if key else text
