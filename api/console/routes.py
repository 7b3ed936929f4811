"""Routes of the console: its page at every path below /ui/, and the files that the page loads."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Blueprint, Response, abort, request
from werkzeug.exceptions import HTTPException

from api.components import components
from api.console.files import console_files
from api.console.page import console_page, content_policy
from api.forms.query import check_query
from api.security.headers import CACHE_CONTROL, CONTENT_POLICY
from api.views.problems import http_problem
from api.views.urls import prefixed
from inference.container import Services
from inference.errors import NotFound

blueprint = Blueprint("console", __name__)

#: Modules of the pages without and with an id in their path.
_MODULES = {"tasks": "tasks.js", "dead-letters": "dead_letters.js", "queue": "queue.js", "models": "models.js"}
_SUBJECT_MODULES = {"tasks": "task.js", "batches": "batch.js"}
#: Query parameters that the page's scripts read: the filters of a list of tasks.
_FILTERS = frozenset({"status", "model", "request_id", "owner", "since", "cursor"})
#: A file at a path with its digest never changes.
_FOR_EVER = "public, max-age=31536000, immutable"


@blueprint.get("/ui")
def redirect_to_console() -> Response:
    """Redirect to the page, whose relative URLs need the slash at the end."""
    check_query()
    return redirection("ui/")


@blueprint.get("/ui/")
def show_console() -> Response:
    """Return the page that classifies an image."""
    check_query({"model"})
    return _page("../", "try.js")


@blueprint.get("/ui/<page>")
def show_console_page(page: str) -> Response:
    """Return the page of a list. Aborts with 404."""
    module = _module(_MODULES, page)
    check_query(_FILTERS)
    return _page("../", module)


@blueprint.get("/ui/<page>/<subject>")
def show_console_subject(page: str, subject: str) -> Response:  # noqa: ARG001 the page's script reads it from its URL
    """Return the page of a task or batch, which need not exist. Aborts with 404."""
    module = _module(_SUBJECT_MODULES, page)
    check_query()
    return _page("../../", module)


@blueprint.get("/ui/static/<digest>/<name>")
def get_console_file(digest: str, name: str) -> Response:
    """Return a file of the page. Raises NotFound."""
    check_query()
    files = console_files()
    file = files.by_name.get(name) if digest == files.digest else None
    if file is None:
        raise NotFound("there is nothing at this path")
    headers = {CACHE_CONTROL: _FOR_EVER, "Vary": "Accept-Encoding"}
    if file.compressed is None or not request.accept_encodings["gzip"]:
        return Response(file.content, headers=headers, mimetype=file.media_type)
    return Response(file.compressed, headers=headers | {"Content-Encoding": "gzip"}, mimetype=file.media_type)


@blueprint.app_errorhandler(HTTPStatus.NOT_FOUND)
def show_nothing(error: HTTPException) -> Response:
    """Answer a path that does not exist: browsers get a page below /ui/, everybody else a problem document."""
    if request.path.startswith("/ui/") and wants_page():
        return _page("../" * (request.path.count("/") - 1), None, HTTPStatus.NOT_FOUND)
    return http_problem(error)


def wants_page() -> bool:
    """Whether the current request would rather have HTML than JSON, as a browser's address bar does and a program does not."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def redirection(place: str) -> Response:
    """Redirect to a relative path, with the prefix of a proxy if it is known."""
    location = prefixed(f"/{place}") if request.root_path else place
    return Response("", 303, {"Location": location, "Vary": "Accept"}, mimetype="text/html")


def _module(modules: dict[str, str], page: str) -> str:
    if page not in modules:
        abort(HTTPStatus.NOT_FOUND)
    return modules[page]


def _models_of_form(services: Services) -> tuple[str, ...]:
    """Names of all models, the default first; none if the service has keys, since the page is served without one."""
    if services.keys.is_on:
        return ()
    default = services.runtime_config.now().default_name
    return (default, *(model.name for model in services.models if model.name != default))


def _page(root: str, module: str | None, status: HTTPStatus = HTTPStatus.OK) -> Response:
    services = components().services
    settings = services.settings
    for_scripts = {"has_docs": settings.api.docs, "max_batch_items": settings.max_batch_items}
    page = console_page(root, module, _models_of_form(services), json.dumps(for_scripts))
    headers = {CONTENT_POLICY: content_policy(root), "Vary": "Accept"}
    return Response(page, status, headers, mimetype="text/html")
