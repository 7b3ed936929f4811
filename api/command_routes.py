"""POST /inference_service_controller: change what runs, while it runs."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.command_form import Fields, command_fields, read_command
from api.context import api
from api.responses import json_response

blueprint = Blueprint("commands", __name__)


@blueprint.post("/inference_service_controller")
def command() -> Response:
    return run_command(command_fields(request))


def run_command(fields: Fields) -> Response:
    """Raises InferenceError: refused; then nothing has changed."""
    return json_response({"response": api().commands.run(read_command(fields))})
