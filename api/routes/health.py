"""Routes of the probes, and of the overview of all paths."""

from __future__ import annotations

from flask import Blueprint, Response

from api.components import components
from api.console.routes import redirection, wants_page
from api.forms.query import check_query
from api.security.caller import NOBODY, caller
from api.views.identity import identity
from api.views.responses import json_response
from api.views.urls import prefixed
from inference.runtime.health import is_healthy

blueprint = Blueprint("health", __name__)

_PATHS = {
    "POST /inference": "classify an image: curl -F image=@photo.jpg …/inference",
    "POST /inference/batch": "classify many: curl -F image=@one.jpg -F image=@two.jpg …/inference/batch",
    "POST /uploads": "a URL to put a large image to, and its name for requests",
    "GET /batches/{batch_id}?wait=N": "a batch, waiting up to N seconds for its end",
    "DELETE /batches/{batch_id}": "cancel the tasks of a batch that have not ended",
    "GET /tasks/{task_id}?wait=N": "a task, waiting up to N seconds for its end",
    "GET /tasks?status=…&model=…&request_id=…&since=…&limit=N&cursor=…": "tasks, newest first, a page at a time",
    "DELETE /tasks/{task_id}": "cancel a task",
    "DELETE /tasks/{task_id}?erase=true, /tasks?request_id=…&erase=true": "remove everything of tasks",
    "GET /erasures/{erasure_id}": "how far that is",
    "GET /tasks/{task_id}/image": "the image of a task, while it is kept",
    "POST /tasks/{task_id}/replay": "run a task that has ended again, as a new task",
    "GET /tasks/{task_id}/events, /batches/{batch_id}/events, /events": "what happens, as server-sent events",
    "GET /dead-letters?limit=N": "tasks that were given up, and results that a sink refused",
    "POST /dead-letters/{task_id}/replay": "deliver such a result again, or run the image again",
    "DELETE /dead-letters/{task_id}": "discard a dead letter",
    "POST /inference_service_controller": "change a model, the served model or the ensemble mode",
    "GET /key": "owner, role and limits of the request's key",
    "GET /models, /models/{name}": "the models: input, labels, version, rate",
    "GET /status": "stores, queues, workers, sinks and problems",
    "GET /metrics": "metrics for Prometheus",
    "GET /health/live, /health/ready": "probes",
    "GET /v2, /v2/models/{name}/infer": "the Open Inference Protocol, for clients of Triton and KServe",
}
_CONSOLE = {"GET /ui/": "the console, for browsers"}
_DOCUMENTATION = {"GET /openapi.json, /docs": "the description of the API, for programs and for browsers"}


@blueprint.get("/")
def index() -> Response:
    """Describe the service and its paths, and while it has no keys its models; a browser is redirected to the console."""
    check_query()
    services = components().services
    if services.settings.ui.enabled and wants_page():
        return redirection("ui/")
    shown = {} if caller() is NOBODY else {**identity(services), "models": [model.name for model in services.models]}
    paths = _PATHS | (_CONSOLE if services.settings.ui.enabled else {}) | (_DOCUMENTATION if services.settings.api.docs else {})
    return json_response({"service": "image inference", **shown, "paths": _prefixed(paths)})


def _prefixed(paths: dict[str, str]) -> dict[str, str]:
    return {path.replace(" /", f" {prefixed('/')}"): text for path, text in paths.items()}


@blueprint.get("/health/live")
def live() -> Response:
    """Answer 200 as long as the process runs."""
    check_query()
    return json_response({"status": "live"})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Answer 200 if a request would be served now; otherwise 503 with the failed checks."""
    check_query()
    checks = components().readiness.checks()
    status, code = ("ready", 200) if is_healthy(checks) else ("not ready", 503)
    return json_response({"status": status, "checks": checks}, code)
