"""`python -m gevent.monkey tests/support/dying_api.py PORT`: the API, killed between an image and its task."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from api.server import gunicorn_server
from inference.settings import config_path, load_settings
from inference.task_store.redis_store import RedisTaskStore


def _die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getppid(), signal.SIGKILL)  # gunicorn's first process, which would start another
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    RedisTaskStore.accept = RedisTaskStore.accept_batch = _die  # type: ignore[assignment,method-assign]
    gunicorn_server.serve(load_settings(config_path(), {"api": {"port": int(sys.argv[1])}}))
