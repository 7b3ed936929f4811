"""`python tests/support/dying_relay.py`: the relay, killed between a sink's confirmation and the note that it came."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from inference.relay import process as relaying
from inference.settings import config_path, load_settings
from inference.task_store.redis_store import RedisTaskStore


def _die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    RedisTaskStore.confirm_deliveries = _die  # type: ignore[method-assign]
    relaying.serve(load_settings(config_path()))
