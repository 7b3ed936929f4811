"""The Flask application."""

from __future__ import annotations

from flask import Flask, Request
from werkzeug.utils import cached_property

from api.components import build_components, install_components
from api.console import routes as console_routes
from api.console.files import console_files
from api.forms.parser import OTHER_PARTS, FormParser, boundary_in
from api.forms.path_ids import register_id_check
from api.openapi.document import openapi_document
from api.routes import batches as batch_routes
from api.routes import commands as command_routes
from api.routes import dead_letters as dead_letter_routes
from api.routes import documentation, health
from api.routes import erasures as erasure_routes
from api.routes import events as event_routes
from api.routes import inference as inference_routes
from api.routes import keys as key_routes
from api.routes import metrics as metrics_routes
from api.routes import status as status_routes
from api.routes import tasks as task_routes
from api.routes import uploads as upload_routes
from api.security.failed_keys import FailedKeys
from api.security.keys import KeyCheck
from api.security.middleware import WebSecurity
from api.security.proxies import TrustedProxies
from api.server.shutdown_flag import SharedFlag
from api.telemetry.request_metrics import RequestMetrics
from api.telemetry.tracing import RequestTracing
from api.v2 import routes as v2_routes
from api.views.problems import register_error_handlers
from inference.container import Services
from inference.settings import Settings


class _Request(Request):
    """Request whose forms are read by `FormParser`."""

    form_data_parser_class = FormParser

    @cached_property
    def mimetype_params(self) -> dict[str, str]:
        """Parameters of the Content-Type; Werkzeug truncates a boundary that needs quotes and has none."""
        boundary = boundary_in(self.headers.get("Content-Type", ""))
        return super().mimetype_params | ({} if boundary is None else {"boundary": boundary})


def create_app(settings: Settings, stopping: SharedFlag | None = None, max_event_streams: int | None = None) -> Flask:
    """Create the API for these settings.

    Args:
        stopping: a flag that is set before the service ends.
        max_event_streams: limit for this process; None: as the settings say.

    Raises:
        ConfigurationError: a model's description is not valid.
    """
    app = Flask("api", static_folder=None)
    app.request_class = _Request
    max_streams = max_event_streams or settings.api.max_event_streams
    services = Services(settings, role="api")
    install_components(app, build_components(services, stopping or SharedFlag(), max_streams))
    app.url_map.merge_slashes = False  # a path with double slashes is unknown; Werkzeug would redirect with an HTML page
    app.config["MAX_CONTENT_LENGTH"] = settings.api.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.limits.max_metadata_bytes
    app.config["MAX_JSON_DEPTH"] = settings.limits.max_json_depth
    app.config["MAX_FORM_PARTS"] = settings.max_batch_items + OTHER_PARTS
    _register_blueprints(app, settings)
    if services.tracer is not None:
        RequestTracing(services.tracer).install(app)
    if (keys := services.keys).is_on:
        KeyCheck(keys, FailedKeys(), open_metrics=settings.security.open_metrics).install(app)
    register_id_check(app)
    register_error_handlers(app)
    app.wsgi_app = WebSecurity(app.wsgi_app, settings.api)  # type: ignore[method-assign]
    if settings.api.trusted_proxies:
        app.wsgi_app = TrustedProxies(app.wsgi_app, settings.api.trusted_proxies, app.url_map)  # type: ignore[method-assign]
    app.wsgi_app = RequestMetrics(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _register_blueprints(app: Flask, settings: Settings) -> None:
    app.register_blueprint(inference_routes.blueprint)
    app.register_blueprint(command_routes.blueprint)
    app.register_blueprint(batch_routes.blueprint)
    app.register_blueprint(task_routes.blueprint)
    app.register_blueprint(erasure_routes.blueprint)
    app.register_blueprint(event_routes.blueprint)
    app.register_blueprint(upload_routes.blueprint)
    app.register_blueprint(dead_letter_routes.blueprint)
    app.register_blueprint(status_routes.blueprint)
    app.register_blueprint(metrics_routes.blueprint)
    app.register_blueprint(key_routes.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(v2_routes.blueprint)
    if settings.api.docs:
        openapi_document()  # built before the first request
        app.register_blueprint(documentation.blueprint)
    if settings.ui.enabled:
        console_files()  # read and compressed before the first request
        app.register_blueprint(console_routes.blueprint)
