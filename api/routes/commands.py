"""Route of commands. POST /inference_service_controller: change models and ensemble mode while the service runs."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.components import components
from api.forms.command import COMMAND_EXAMPLE, read_command
from api.forms.sent_fields import SentFields, read_sent_fields
from api.views.responses import json_response

blueprint = Blueprint("commands", __name__)


@blueprint.post("/inference_service_controller")
def command() -> Response:
    """Run the command of the current request."""
    max_batch_items = components().services.settings.max_batch_items
    sent = read_sent_fields(request, json_example=COMMAND_EXAMPLE, max_batch_items=max_batch_items, has_images=False)
    return run_command(sent)


def run_command(sent: SentFields) -> Response:
    """Run the command in `sent`. Raises InferenceError: the command failed, and nothing has changed."""
    return json_response({"response": components().commands.run(read_command(sent))})
