"""The Flask application."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request
from werkzeug.utils import cached_property

from api.acceptance.admission import Admission
from api.acceptance.batch_submission import BatchSubmissions
from api.acceptance.submission import Submissions
from api.acceptance.uploads import Uploads
from api.commands import Commands
from api.forms.parser import OTHER_PARTS, FormParser, boundary_in
from api.forms.path_ids import register_id_check
from api.routes import batches as batch_routes
from api.routes import commands as command_routes
from api.routes import health
from api.routes import inference as inference_routes
from api.routes import tasks as task_routes
from api.security.middleware import WebSecurity
from api.security.proxies import TrustedProxies
from api.server.stopping import SharedFlag
from api.views.problems import register_error_handlers
from inference.container import Services
from inference.lifecycle.replies import ReplyRouter
from inference.settings import Settings


class _Request(Request):
    form_data_parser_class = FormParser

    @cached_property
    def mimetype_params(self) -> dict[str, str]:
        """Parameters of the Content-Type; Werkzeug cuts a boundary that should have quotes and has none."""
        boundary = boundary_in(self.headers.get("Content-Type", ""))
        return super().mimetype_params | ({} if boundary is None else {"boundary": boundary})


class Api(Flask):
    """Flask with what its routes need."""

    request_class = _Request

    def __init__(self, services: Services, stopping: SharedFlag) -> None:
        super().__init__("api")
        self.services = services
        self.stopping = stopping
        settings = services.settings
        self.replies = ReplyRouter(services.redis, services.store, settings.task_store.key_prefix)
        parts: dict[str, Any] = {
            "store": services.store,
            "broker": services.broker,
            "uploads": Uploads(services.objects, settings.uploads),
            "configuration": services.effective,
            "replies": self.replies,
            "admission": Admission(
                services.store,
                services.outbox_stats,
                settings.outbox,
                workers=services.presence.workers,
                worker_settings=settings.worker,
                check_free_space=services.free_space.check,
            ),
            "settings": settings,
        }
        self.submissions = Submissions(**parts)
        self.batch_submissions = BatchSubmissions(**parts, objects=services.objects)
        self.commands = Commands(
            services.effective,
            services.desired,
            services.presence,
            services.model_files,
            load_timeout_s=settings.worker.load_timeout_s,
        )


def create_app(settings: Settings, stopping: SharedFlag | None = None) -> Api:
    """The API for these settings.

    Args:
        stopping: set when this service is about to end.

    Raises:
        ConfigurationError: a model's description is wrong.
    """
    app = Api(Services(settings), stopping or SharedFlag())
    app.url_map.merge_slashes = False  # a path with too many is unknown, not redirected by a page of HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.api.max_body_bytes
    app.config["MAX_FORM_PARTS"] = settings.max_batch_items + OTHER_PARTS
    app.register_blueprint(inference_routes.blueprint)
    app.register_blueprint(command_routes.blueprint)
    app.register_blueprint(batch_routes.blueprint)
    app.register_blueprint(task_routes.blueprint)
    app.register_blueprint(health.blueprint)
    register_id_check(app)
    register_error_handlers(app)
    app.wsgi_app = WebSecurity(app.wsgi_app, settings.api)  # type: ignore[method-assign]
    if settings.api.trusted_proxies:
        app.wsgi_app = TrustedProxies(app.wsgi_app, settings.api.trusted_proxies, app.url_map)  # type: ignore[method-assign]
    return app
