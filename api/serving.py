"""The API under gunicorn with gevent workers. Import gevent's monkey patch before this module: see server.py."""

from __future__ import annotations

import gc
from typing import Any

from gunicorn.app.base import BaseApplication

from api.app import create_app
from inference.heap import freeze_heap
from inference.open_files import let_open
from inference.settings import Settings

#: How many more objects are made than freed until Python looks for cycles among them. A batch is a thousand that live until its
#: answer, and no image is in a cycle: the usual 700 cost a tenth of the CPU time.
_YOUNG_OBJECTS = 5_000
#: Files of a process beside its connections: to Redis and the object store, uploads, logs.
_OTHER_FILES = 1_000


class _Gunicorn(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        api = self._settings.api
        options: dict[str, Any] = {
            "bind": f"{api.host}:{api.port}",
            "workers": api.workers,
            "worker_connections": api.max_connections,
            "worker_class": "gevent",
            "graceful_timeout": int(api.drain_timeout_s),
            "timeout": 60,
            "keepalive": 5,
            "loglevel": self._settings.log.level.lower() if self._settings.log.level == "DEBUG" else "warning",
            "control_socket_disable": True,
            "post_worker_init": lambda _worker: freeze_heap(),
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        return create_app(self._settings)


def serve(settings: Settings) -> None:
    """Run until stopped."""
    gc.set_threshold(_YOUNG_OBJECTS)
    let_open(settings.api.max_connections + _OTHER_FILES)
    create_app(settings)  # what is wrong with it is said once, before any worker is forked
    _Gunicorn(settings).run()
