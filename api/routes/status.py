"""Routes that describe the running service. /status: stores, queues, workers and problems; /models: the models."""

from __future__ import annotations

from flask import Blueprint, Response

from api.components import components
from api.forms.query import check_query
from api.views.model import model_detail_view, model_view
from api.views.responses import json_response
from inference.errors import ModelNotFound, shown

blueprint = Blueprint("status", __name__)


@blueprint.get("/status")
def get_status() -> Response:
    """Return the output of `server.py status --json`, with the texts of errors that clients may see."""
    check_query()
    return json_response(components().status())


@blueprint.get("/models")
def list_models() -> Response:
    """Return all models, without their labels."""
    check_query()
    services = components().services
    snapshot, workers = services.runtime_config.now(), services.presence.workers()
    return json_response({"models": [model_view(spec, snapshot, workers) for spec in services.models]})


@blueprint.get("/models/<name>")
def get_model(name: str) -> Response:
    """Return one model, with its labels and the workers that have it loaded."""
    check_query()
    services = components().services
    if name not in services.models:
        names = ", ".join(model.name for model in services.models)
        raise ModelNotFound(f"there is no model {shown(name)}", expected=f"one of {names}")
    spec, workers = services.models.get(name), services.presence.workers()
    _, proposal = services.desired.read_with_proposal()
    is_changing = proposal is not None and proposal.model == name
    reports = services.desired.reports(proposal.change_id) if proposal and is_changing else None
    return json_response(model_detail_view(spec, services.runtime_config.now(), workers, reports))
