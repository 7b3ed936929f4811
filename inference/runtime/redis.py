"""Connections to Redis, embedded or external, for redis-py and kombu."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.runtime.private_files import make_private_folder, shared_folder_problem
from inference.runtime.tls import amqp_tls
from inference.settings import EMBEDDED, Settings
from inference.settings.redis_address import RedisAddress

#: Longest path of a Unix socket that every platform accepts, bytes.
_MAX_SOCKET_PATH = 100
#: More than the greenlets of one API process that use Redis concurrently; redis-py's default, 100, would refuse some.
_MAX_CONNECTIONS = 1000
#: Seconds after which the next sentinel is asked.
_SENTINEL_TIMEOUT_S = 1

#: Temporary errors, which the command did not cause: the server is full, is a replica (or becomes one while a client waits), has
#: too few replicas, or was promoted before it had a relay's consumer group; a cluster changes its master.
_PASSING_ERRORS = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,
)
#: redis-py adds a prefix to the error of a pipeline, Redis 6.2 to the error of a script.
_PASSING_CODES = re.compile(
    r"(?:^|: -?)(?:OOM|READONLY|MASTERDOWN|NOREPLICAS|MISCONF|LOADING|UNBLOCKED|NOGROUP|MOVED|CLUSTERDOWN) "
)
#: Errors of a server that is full, has too few replicas or cannot write to its disk: the first write of a script failed.
_NOTHING_WRITTEN = re.compile(r"(?:^|: -?)(?:OOM|NOREPLICAS|MISCONF) ")


def embedded_socket(data_dir: Path) -> Path:
    """Return the path of the embedded broker's Unix socket for this data folder; it is the same in every process.

    If the path would be too long for a socket, the socket is in a folder of its own below the folder for temporary files.
    """
    folder = _broker_folder(data_dir)
    socket = folder / "broker.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"inference-{os.getuid()}-{name}" / "broker.sock"


def socket_folder_problem(data_dir: Path, *, make: bool) -> str | None:
    """Return the reason for which other users could replace a socket below the folder for temporary files; None if they cannot.

    Args:
        make: create the folder if it is missing, so that no other user can create it first.
    """
    folder = embedded_socket(data_dir).parent
    if folder == _broker_folder(data_dir):
        return None
    problem = make_private_folder(folder) if make else shared_folder_problem(folder)
    if problem is None:
        return None
    return (
        f"data_dir: its path is too long for the broker's socket, which needs a folder of its own instead: {problem};"
        " remove that, choose a shorter data_dir, or set TMPDIR"
    )


def _broker_folder(data_dir: Path) -> Path:
    return data_dir.resolve() / "broker"


def _resolve(url: str, settings: Settings) -> str:
    if url != EMBEDDED:
        return url
    if problem := socket_folder_problem(settings.data_dir, make=True):
        raise ConfigurationError(problem, field="data_dir")
    return f"unix://{embedded_socket(settings.data_dir)}?db=0"


def broker_url(settings: Settings) -> str:
    """Return the broker's URL, as `RedisAddress` reads it. Raises ConfigurationError if other users could replace its socket."""
    return _resolve(settings.broker.url, settings)


def task_store_url(settings: Settings) -> str:
    """Return the task store's URL, as `RedisAddress` reads it. Raises ConfigurationError as `broker_url`."""
    return _resolve(settings.task_store.url or settings.broker.url, settings)


def kombu_url(settings: Settings) -> str:
    """Return the broker's URL, Redis or RabbitMQ, in kombu's form. Use it together with `kombu_tls` and `kombu_sentinel_options`.

    Raises ConfigurationError as `broker_url`.
    """
    if settings.broker.is_amqp:
        return settings.broker.url
    address = RedisAddress.parse(broker_url(settings))
    credentials = _quoted_credentials(address)
    if address.socket is not None:
        return f"redis+socket://{credentials}{quote(str(address.socket))}?virtual_host={address.db}"
    scheme = "sentinel" if address.master else "rediss" if address.tls is not None else "redis"
    # One URL for each sentinel: if one is down, kombu uses the next, which must therefore be complete.
    return ";".join(f"{scheme}://{credentials}{_quoted_node(node)}/{address.db}" for node in address.nodes)


def kombu_tls(settings: Settings) -> dict[str, Any] | None:
    """Return the value of Celery's `broker_use_ssl`; None: no TLS. Raises ConfigurationError: a file is not usable."""
    if settings.broker.is_amqp:
        return amqp_tls(settings.broker)
    tls = RedisAddress.parse(broker_url(settings)).tls
    return None if tls is None else {"ssl_cert_reqs": "required", **tls}


def kombu_sentinel_options(settings: Settings) -> dict[str, Any]:
    """Return the transport options with which kombu finds the broker's master; empty without sentinels."""
    if settings.broker.is_amqp:
        return {}
    address = RedisAddress.parse(broker_url(settings))
    return {"master_name": address.master, "sentinel_kwargs": _sentinel_options(address)} if address.master else {}


def connect(url: str, *, retries: int = 3) -> redis.Redis:
    """Return a client with timeouts: a server that hangs causes an error. With sentinels the client follows the master."""
    address = RedisAddress.parse(url)
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "health_check_interval": 30,
        "max_connections": _MAX_CONNECTIONS,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=retries),
    }
    if address.tls is not None:
        options |= {"ssl": True, **address.tls}
    if address.master is not None:
        sentinels = _Sentinels(address.nodes, sentinel_kwargs=_sentinel_options(address))
        master: redis.Redis = sentinels.master_for(address.master, **options)  # type: ignore[no-untyped-call]
        return master
    if address.socket is not None:
        return redis.Redis(unix_socket_path=str(address.socket), **options)
    host, port = address.nodes[0]
    return redis.Redis(host, port, **options)


@contextmanager
def unavailable_when_down() -> Iterator[None]:
    """Raise ServiceUnavailable in place of redis-py's errors if Redis does not answer or cannot take changes now."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        public = "the task store does not answer"
        raise ServiceUnavailable(f"{public}: {error}", public=public, retry_after_s=1) from error
    except redis.ResponseError as error:
        if not isinstance(error, _PASSING_ERRORS) and not _PASSING_CODES.search(str(error)):
            raise
        public = "the task store takes no changes at the moment"
        refusal = ServiceUnavailable(f"the task store refuses: {error}", public=public, retry_after_s=1)
        is_full = isinstance(error, redis.exceptions.OutOfMemoryError)
        refusal.is_refusal = is_full or _NOTHING_WRITTEN.search(str(error)) is not None
        raise refusal from error


class _Sentinels(Sentinel):
    """Sentinels that one thread asks at a time: redis-py reorders its list without a lock, and two threads would corrupt it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._one_at_a_time = threading.Lock()

    def discover_master(self, service_name: str) -> Any:
        with self._one_at_a_time:
            try:
                return super().discover_master(service_name)  # type: ignore[no-untyped-call]
            except MasterNotFoundError:  # its text contains every sentinel's state
                raise MasterNotFoundError(f"no sentinel knows a {service_name} that is up") from None


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Return the options of the connections to the sentinels."""
    options: dict[str, Any] = {
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "socket_timeout": _SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": _SENTINEL_TIMEOUT_S,
        "retry": None,  # other sentinels are asked next, and kombu blocks its process while it asks
    }
    return options if address.tls is None else options | {"ssl": True, **address.tls}


def _quoted_credentials(address: RedisAddress) -> str:
    if not address.username and not address.password:
        return ""
    return f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"


def _quoted_node(node: tuple[str, int]) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{quote(host)}:{port}"
