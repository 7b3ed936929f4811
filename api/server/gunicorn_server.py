"""Start of the API under gunicorn with gevent workers. Apply gevent's monkey patch before the import: see server.py."""

from __future__ import annotations

import gc
import logging
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from api.app import create_app
from api.components import components_of
from api.server.arbiter import StoppingArbiter
from api.server.connections import HttpWorker
from api.server.gunicorn_log import GunicornLog
from api.server.http_messages import MAX_HEADER_FIELD_BYTES, MAX_HEADER_FIELDS, MAX_REQUEST_LINE_BYTES
from api.server.minimum_pace import show_progress
from api.server.response_writer import use_response_writer
from api.server.shutdown_flag import SharedFlag
from inference.keys.exposure import check_exposure
from inference.metrics.process_files import add_ended_process
from inference.runtime.heap import freeze_heap
from inference.runtime.memory import return_large_blocks
from inference.runtime.open_files import raise_open_file_limit
from inference.settings import Settings
from inference.settings.http_address import bound_socket

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

#: Number of new objects, less the freed ones, after which Python collects cycles. A batch has a thousand objects that live until
#: its answer, and no image is in a cycle: the default of 700 cost a tenth of the CPU time.
_YOUNG_OBJECTS = 5_000
#: Open files of a process in addition to client connections: Redis and object store, uploads, logs.
_OTHER_FILES = 1_000
_BACKLOG = 2048


class _Gunicorn(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's application, configured only by this service's settings.

    Args:
        listeners: file descriptors of the listening sockets.
        max_connections: limit for each process.
    """

    def __init__(self, settings: Settings, listeners: Sequence[int], max_connections: int) -> None:
        self._settings = settings
        self._listeners = listeners
        self._max_connections = max_connections
        self.keepalive_s = settings.api.keepalive_s
        self.max_connections_per_address = settings.api.max_connections_per_address
        self.trusted_proxies = settings.api.trusted_proxies
        self.drain_timeout_s = settings.api.drain_timeout_s
        self.shutdown_delay_s = settings.api.shutdown_delay_s
        self.stopping = SharedFlag()
        self.log_settings = settings.log
        self.body_budget_bytes = settings.api.body_budget_bytes
        self.body_timeout_s = settings.api.body_timeout_s
        self.body_min_bytes_per_s = settings.api.body_min_bytes_per_s
        #: of a worker process, which loads the application after the fork; None while traces are off
        self._tracer: Tracer | None = None
        super().__init__()

    def load_config(self) -> None:
        api = self._settings.api
        options: dict[str, Any] = {
            "bind": [f"fd://{listener}" for listener in self._listeners],
            "workers": api.workers,
            "worker_connections": self._max_connections,
            "worker_class": HttpWorker,
            "graceful_timeout": math.ceil(api.drain_timeout_s) + 1,  # a process that has not ended by then is killed
            "timeout": 60,
            "keepalive": math.ceil(api.keepalive_s),
            "logger_class": GunicornLog,
            "control_socket_disable": True,
            "post_worker_init": lambda _worker: freeze_heap(),
            "worker_exit": lambda _arbiter, worker: worker.app.send_last_spans(),
            "child_exit": lambda _arbiter, worker: add_ended_process(worker.pid),
            "limit_request_line": MAX_REQUEST_LINE_BYTES,
            "limit_request_fields": MAX_HEADER_FIELDS,
            "limit_request_field_size": MAX_HEADER_FIELD_BYTES,
            # gunicorn applies no proxy headers, from any sender: api.security.proxies does that.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "proxy_allow_ips": "",
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        max_streams = max(1, min(self._settings.api.max_event_streams, self._max_connections // 2))
        app = create_app(self._settings, self.stopping, max_streams)
        self._tracer = components_of(app).services.tracer
        return app

    def send_last_spans(self) -> None:
        """Send the spans of this process; it ends then."""
        if self._tracer is not None:
            self._tracer.close()

    def run(self) -> None:
        StoppingArbiter(self).run()


def serve(settings: Settings) -> None:
    """Serve the API until it is stopped.

    Raises:
        ConfigurationError: a model's description is not valid, the service cannot listen on the address, or other machines may
            reach it and there is no key.
    """
    gc.set_threshold(_YOUNG_OBJECTS)
    return_large_blocks(from_bytes=2 * 2**20, kept_bytes=16 * 2**20)
    use_response_writer()
    os.environ.pop("SCRIPT_NAME", None)  # gunicorn would answer requests for other paths with 500
    max_connections = connections_within(
        raise_open_file_limit(settings.api.max_connections + _OTHER_FILES), settings.api.max_connections
    )
    app = create_app(settings)  # reports errors once, before any worker is forked
    listeners = [bound_socket(host, port, key=key) for key, (host, port) in settings.api.listening_addresses.items()]
    check_exposure(settings, components_of(app).services.keys)
    for listener in listeners:
        show_progress(listener)
        listener.listen(_BACKLOG)
    _Gunicorn(settings, [listener.detach() for listener in listeners], max_connections).run()


def connections_within(files: int, max_connections: int) -> int:
    """Maximum connections of a process that may open `files` files; logs a warning if less than `max_connections`."""
    possible = min(max_connections, files - min(_OTHER_FILES, files // 2))
    if possible < max_connections:
        logger.warning(
            "api.max_connections is %d, but the system allows a process %d open files (ulimit -n): it takes %d connections",
            max_connections,
            files,
            possible,
        )
    return possible
