"""Route of commands. POST /inference_service_controller: change models and ensemble mode while the service runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from api.components import components
from api.forms.command import (
    COMMAND_EXAMPLE,
    ChangeEnsembleMode,
    Command,
    LoadNewModel,
    LoadNewWeights,
    ReloadModel,
    read_command,
)
from api.forms.sent_fields import SentFields, read_sent_fields
from api.security.caller import caller
from api.security.request_audit import audited
from api.views.responses import json_response
from inference.errors import Forbidden

blueprint = Blueprint("commands", __name__)

#: Names of commands in the audit log.
_NAMES: dict[type[Command], str] = {
    ChangeEnsembleMode: "change_ensemble_mode",
    LoadNewModel: "load_new_model",
    LoadNewWeights: "load_new_weights",
    ReloadModel: "reload_model",
}


@blueprint.post("/inference_service_controller")
def command() -> Response:
    """Run the command of the current request."""
    check_command_allowed()
    max_batch_items = components().services.settings.max_batch_items
    sent = read_sent_fields(request, json_example=COMMAND_EXAMPLE, max_batch_items=max_batch_items, has_images=False)
    return run_command(sent)


def run_command(sent: SentFields) -> Response:
    """Run the command in `sent`. Raises InferenceError: it is not allowed, or failed, and nothing has changed."""
    return json_response({"response": run_audited(lambda: read_command(sent))})


def run_audited(read: Callable[[], Command]) -> dict[str, Any]:
    """Read and run a command of the current request, and write it to the audit log.

    Raises:
        InferenceError: it is not allowed, or failed, and nothing has changed.
    """
    with audited("command") as line:
        check_command_allowed()
        command = read()
        fields = asdict(command)
        line |= {"target": fields.pop("model", None) or fields.pop("model_id", ""), "command": _NAMES[type(command)], **fields}
        return components().commands.run(command)


def check_command_allowed() -> None:
    """Check that commands are taken at the address of the current request, and from its caller. Raises Forbidden."""
    api = components().services.settings.api
    if api.commands is False:
        raise Forbidden("this service takes no commands (api.commands)", expected="a change of its configuration")
    address = api.commands_address
    if address is not None and request.environ["SERVER_PORT"] != str(address[1]):
        raise Forbidden("commands are not taken at this address", expected="the address in api.commands")
    if not caller().is_admin:
        raise Forbidden(f"a command needs a key with the role admin; this key has the role {caller().role}")
