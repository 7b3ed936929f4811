"""What a command says: flat fields of a form, or of a JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Request
from pydantic import TypeAdapter, ValidationError

from inference.errors import InvalidRequest, UnknownCommand, shown

#: The command of a request that names none, where images are classified.
PREDICT = "predict"

_EXPECTED = "change_ensemble_mode, load_new_model, load_new_weights or modify_weights; at /inference also predict"

_BOOLEAN = TypeAdapter(bool)

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class ChangeEnsembleMode:
    #: true: results go to Kafka for an ensemble's aggregator; false: to MongoDB
    ensemble_mode: bool


@dataclass(frozen=True)
class LoadNewModel:
    model_id: str


@dataclass(frozen=True)
class LoadNewWeights:
    #: None: the served model
    model: str | None
    weights_url: str
    architecture_url: str | None
    #: paths of the worker's host; else objects of the model bucket
    local_file: bool


Command = ChangeEnsembleMode | LoadNewModel | LoadNewWeights


def command_fields(request: Request) -> Fields:
    """Raises InvalidRequest: the body is JSON, but no object."""
    if not request.is_json:
        return request.form
    try:
        document = orjson.loads(request.get_data())
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", expected="a form, or a JSON object") from error
    if not isinstance(document, dict):
        raise InvalidRequest("the body is not a JSON object", expected='an object such as {"command": "load_new_model"}')
    return document


def read_command(fields: Fields) -> Command:
    """Raises InvalidRequest, UnknownCommand."""
    match fields.get("command"):
        case "change_ensemble_mode":
            return ChangeEnsembleMode(_boolean(fields, "ensemble_mode"))
        case "load_new_model":
            return LoadNewModel(_text(fields, "model_id"))
        case "load_new_weights" | "modify_weights":
            return LoadNewWeights(
                model=_optional_text(fields, "model_id") or _optional_text(fields, "model"),
                weights_url=_text(fields, "weights_url"),
                architecture_url=_optional_text(fields, "architecture_url"),
                local_file=_boolean(fields, "local_file", default=False),
            )
        case command:
            raise UnknownCommand(f"there is no command {shown(command)}", field="command", expected=_EXPECTED)


def _optional_text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name} is not a text: {shown(value)}", field=name, expected="a text")
    return value.strip() or None if value is not None else None


def _text(fields: Fields, name: str) -> str:
    value = _optional_text(fields, name)
    if value is None:
        raise InvalidRequest(f"{name} is missing", field=name, expected="a text")
    return value


def _boolean(fields: Fields, name: str, *, default: bool | None = None) -> bool:
    """Also what a form makes of Python's: "True", "False"."""
    value = fields.get(name)
    if value in (None, "") and default is not None:
        return default
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError as error:
        raise InvalidRequest(f"{name} is neither true nor false: {shown(value)}", field=name, expected="true or false") from error
