"""Fields of a command, from a form or a JSON object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.forms.known_fields import COMMAND_FIELDS
from api.forms.sent_fields import NO_IMAGE_HERE, SentFields
from inference.errors import InvalidRequest, UnknownCommand, shown

#: The command of a request without a command at the paths that classify images.
PREDICT = "predict"

_EXPECTED = "change_ensemble_mode, load_new_model, load_new_weights or modify_weights; at /inference also predict"

#: An example of a correct body, for error messages.
COMMAND_EXAMPLE = (
    'a form (multipart/form-data, urlencoded), or as application/json {"command": "load_new_model", "model_id": "digits"}'
)

_ALL_FIELDS = frozenset().union(*COMMAND_FIELDS.values())
_BOOLEAN = TypeAdapter(bool)

#: The maximum length of a path on Linux.
_MAX_TEXT_LENGTH = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class ChangeEnsembleMode:
    """Change the sinks of new tasks."""

    #: true: results go to Kafka for an ensemble's aggregator; false: to MongoDB
    ensemble_mode: bool


@dataclass(frozen=True)
class LoadNewModel:
    """Make another model the served model."""

    model_id: str


@dataclass(frozen=True)
class ReloadModel:
    """Load the configured files of a model, if it has others; the served model stays."""

    model: str


@dataclass(frozen=True)
class LoadNewWeights:
    """Replace the files of a model."""

    #: None: the served model
    model: str | None
    weights_url: str
    architecture_url: str | None
    #: whether the URLs are paths on the worker's host; else they are objects of the model bucket
    local_file: bool


Command = ChangeEnsembleMode | LoadNewModel | ReloadModel | LoadNewWeights


def read_command(sent: SentFields) -> Command:
    """Read the command of a request. Raises InvalidRequest, UnknownCommand."""
    command = sent.get("command")
    known = COMMAND_FIELDS.get(command) if isinstance(command, str) else None
    if command in (None, ""):
        sent.check_no_images(NO_IMAGE_HERE)
        sent.check(_ALL_FIELDS)
        raise UnknownCommand("command is missing", field="command", expected=_EXPECTED)
    if known is None:
        raise UnknownCommand(f"there is no command {shown(command)}", field="command", expected=_EXPECTED)
    sent.check_no_images()
    sent.check(known)
    fields = sent.together
    local_file = _boolean(fields, "local_file", default=False)
    match command:
        case "change_ensemble_mode":
            return ChangeEnsembleMode(_boolean(fields, "ensemble_mode"))
        case "load_new_model":
            return LoadNewModel(_text(fields, "model_id"))
        case _:
            return LoadNewWeights(
                model=_model(fields),
                weights_url=_text(fields, "weights_url"),
                architecture_url=_optional_text(fields, "architecture_url"),
                local_file=local_file,
            )


def is_command(command: Any) -> bool:
    """Whether the request is for something else than a prediction."""
    return command not in (None, "", PREDICT)


def check_predicts(command: Any) -> None:
    """Refuse a request with images that names another command. Raises UnknownCommand."""
    if is_command(command):
        raise UnknownCommand(f"there is no command {shown(command)} here", field="command", expected=f"{PREDICT}, or none")


def _model(fields: Fields) -> str | None:
    """The model that `model_id` or `model` names. Raises InvalidRequest."""
    names = {name for name in (_optional_text(fields, "model_id"), _optional_text(fields, "model")) if name is not None}
    if len(names) > 1:
        raise InvalidRequest("model and model_id name two models", field="model_id", expected="one of the two")
    return names.pop() if names else None


def _optional_text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is not a text: {shown(value)}", field=name, expected="a text")
    if len(value) > _MAX_TEXT_LENGTH or _CONTROL.search(value):
        raise InvalidRequest(
            f"{name} is too long or has control characters: {shown(value)}",
            field=name,
            expected=f"at most {_MAX_TEXT_LENGTH} printable characters",
        )
    return value.strip() or None


def _text(fields: Fields, name: str) -> str:
    value = _optional_text(fields, name)
    if value is None:
        raise InvalidRequest(f"{name} is missing", field=name, expected="a text")
    return value


def _boolean(fields: Fields, name: str, *, default: bool | None = None) -> bool:
    """Read a boolean, also as Python writes it in a form: "True", "False". Raises InvalidRequest."""
    value = fields.get(name)
    if value in (None, "") and default is not None:
        return default
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError as error:
        raise InvalidRequest(f"{name} is neither true nor false: {shown(value)}", field=name, expected="true or false") from error
