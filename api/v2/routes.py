"""Routes of the protocol: health, metadata, inference, and the model repository."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.components import components
from api.forms.command import LoadNewWeights, ReloadModel
from api.forms.preference import EXPIRY_GRACE_S
from api.forms.query import check_query
from api.routes.commands import run_audited
from api.security.caller import caller
from api.v2.answer import infer_response
from api.v2.body import read_body
from api.v2.inference import read_inference
from api.v2.metadata import is_loaded, model_metadata, server_metadata
from api.v2.protocol import IndexRequest, LoadParameters, LoadRequest, read_document
from api.views.responses import json_response
from inference.domain import ModelRef
from inference.errors import InvalidRequest, ModelNotFound, WaitTimeout, shown
from inference.models.spec import ModelSpec
from inference.runtime.health import is_healthy

blueprint = Blueprint("v2", __name__, url_prefix="/v2")


@blueprint.get("")
def get_server() -> Response:
    """Describe the server."""
    check_query()
    return json_response(server_metadata())


@blueprint.get("/health/live")
def live() -> Response:
    """Answer 200 as long as the process runs."""
    check_query()
    return json_response({"live": True})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Answer 200 if a request would be served now, otherwise 503."""
    check_query()
    result = is_healthy(components().readiness.checks())
    return json_response({"ready": result}, 200 if result else 503)


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def get_model(name: str, version: str | None = None) -> Response:
    """Describe a model."""
    check_query()
    spec, model = _model(name, version)
    return json_response(model_metadata(spec, model, components().services.presence.workers()))


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    """Answer 200 if a worker has the model loaded, otherwise 503."""
    check_query()
    spec, _ = _model(name, version)
    result = is_loaded(spec.name, components().services.presence.workers())
    return json_response({"name": spec.name, "ready": result}, 200 if result else 503)


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """Classify the images of a tensor: each becomes a task."""
    check_query()
    spec, model = _model(name, version)
    sent = read_inference(request, spec, max_images=components().services.settings.max_batch_items)
    submission = components().batch_submissions.submit(sent.form, caller())
    with submission.waiter as waiter:
        has_ended = waiter.wait_for_all(submission.deadline_s + EXPIRY_GRACE_S)
    components().batch_submissions.confirm(submission)
    if not has_ended:
        raise WaitTimeout("not every result was ready in time; the batch continues", batch_id=submission.batch_id)
    response = infer_response(sent, spec, model, submission)
    if submission.batch is None:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.post("/repository/index")
def index() -> Response:
    """List the models."""
    check_query()
    wanted = read_document(IndexRequest, read_body(request)[0])
    services = components().services
    snapshot, workers = services.runtime_config.now(), services.presence.workers()
    entries = []
    for spec in services.models:
        has_workers = is_loaded(spec.name, workers)
        state, reason = ("READY", "") if has_workers else ("UNAVAILABLE", "no worker has it loaded")
        if has_workers or not wanted.ready:
            entries.append({"name": spec.name, "version": snapshot.reference(spec).version, "state": state, "reason": reason})
    return json_response(entries)


@blueprint.post("/repository/models/<name>/load")
def load(name: str) -> Response:
    """Load a model's configured files again if a command has replaced them, or the files that the request names."""
    check_query()
    spec, _ = _model(name)
    wanted = read_document(LoadRequest, read_body(request)[0]).parameters or LoadParameters()
    if wanted.weights_url is not None:
        command = LoadNewWeights(spec.name, wanted.weights_url, wanted.architecture_url, local_file=False)
        run_audited(lambda: command)
    elif wanted.architecture_url is not None:
        raise InvalidRequest("architecture_url is given without weights_url", expected="both, or weights_url alone")
    else:
        run_audited(lambda: ReloadModel(spec.name))
    return json_response({"name": spec.name, "load": True})


@blueprint.post("/repository/models/<name>/unload")
def unload(name: str) -> Response:
    """Refuse to unload a model: workers keep the models of the configuration loaded."""
    check_query()
    spec, _ = _model(name)
    raise InvalidRequest(
        f"{spec.name} cannot be unloaded: workers keep the configured models loaded",
        expected="a configuration without this model, and a restart",
    )


def _model(name: str, version: str | None = None) -> tuple[ModelSpec, ModelRef]:
    """Return a model and its served version. Raises ModelNotFound: there is no such model, or another version is served."""
    snapshot = components().services.runtime_config.now()
    spec = snapshot.models.get(name)
    model = snapshot.reference(spec)
    if version not in (None, model.version):
        raise ModelNotFound(f"{spec.name} has no version {shown(version)}", expected=model.version)
    return spec, model
