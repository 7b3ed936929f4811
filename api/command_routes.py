"""POST /inference_service_controller: change what runs, while it runs."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.command_form import COMMAND_EXAMPLE, read_command
from api.context import api
from api.responses import json_response
from api.sent_fields import SentFields, read_sent_fields

blueprint = Blueprint("commands", __name__)


@blueprint.post("/inference_service_controller")
def command() -> Response:
    return run_command(read_sent_fields(request, json_example=COMMAND_EXAMPLE, has_images=False))


def run_command(sent: SentFields) -> Response:
    """Raises InferenceError: refused; then nothing has changed."""
    return json_response({"response": api().commands.run(read_command(sent))})
